//! The PostgreSQL interceptor
