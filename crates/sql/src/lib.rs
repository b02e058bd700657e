//! What a SQL statement is and touches
