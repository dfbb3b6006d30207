//! End to end tests against separate processes
