//! Decisions against an interpreter that was written apart from them.
