//! The control side of a data plane, from its admin port, its files, its disk and a control plane that the test
//! plays: everything through `run()`, on port 0, with requests over real sockets.

mod admin;
mod bootstrap;
mod last_good;
mod process;
mod reload;
mod stream;
mod support;
