//! Compile, seen from outside.
