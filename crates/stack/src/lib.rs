//! The tower layers that decide and record every operation, and the one function that puts them in order
