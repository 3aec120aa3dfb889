//! The command line from outside: the built program, against a `gatewayctl dev` of each test's own.

mod applying;
mod dev;
mod looking;
mod process;
mod undoing;
