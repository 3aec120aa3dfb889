//! Connections whose other end is nobody yet: from the moment they are accepted until they open a stream. Each costs a
//! handshake and a place, and whoever reaches the port can make as many as he likes, so that they are bounded: in all,
//! and those of one address, which must not keep out the others. What is beyond is closed unheard; a data plane comes back
//! by itself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// At the same time, in all.
const ALL: usize = 4_096;
/// Of one address: a fleet behind one may come back at once.
const EACH: usize = 1_024;

/// Those of a port.
#[derive(Debug)]
pub(super) struct Strangers {
    all: usize,
    each: usize,
    present: Mutex<Present>,
}

#[derive(Debug, Default)]
struct Present {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
    /// The last was turned away, which is told once.
    is_full: bool,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Stranger {
    among: Arc<Strangers>,
    address: IpAddr,
}

impl Strangers {
    /// None yet.
    pub(super) fn new() -> Arc<Self> {
        Strangers::at_most(ALL, EACH)
    }

    fn at_most(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Strangers { all, each, present: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one in; `None`: there are too many.
    pub(super) fn admit(self: &Arc<Self>, from: SocketAddr) -> Option<Stranger> {
        let address = one_holder(from.ip());
        let mut present = self.lock();
        let of_address = present.by_address.get(&address).copied().unwrap_or(0);
        if present.all >= self.all || of_address >= self.each {
            if !std::mem::replace(&mut present.is_full, true) {
                tracing::warn!(%from, of_address, in_all = present.all, "too many connections of the stream's port have not opened a stream: closing what comes");
            }
            return None;
        }
        present.is_full = false;
        present.all += 1;
        present.by_address.insert(address, of_address + 1);
        Some(Stranger { among: Arc::clone(self), address })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut present = self.among.lock();
        present.all -= 1;
        let left = present.by_address.get(&self.address).map_or(0, |count| count - 1);
        match left {
            0 => present.by_address.remove(&self.address),
            left => present.by_address.insert(self.address, left),
        };
    }
}

/// What one holder has at least: an address of IPv4, 2^64 of IPv6.
fn one_holder(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().expect("an address"), 4_711)
    }

    #[test]
    fn one_address_has_so_many_and_leaves_room_for_others_up_to_a_bound() {
        let strangers = Strangers::at_most(4, 2);
        let admit = |address| strangers.admit(from(address));
        let first = admit("192.0.2.1").expect("room");
        let mapped = admit("::ffff:192.0.2.1").expect("room");
        assert!(admit("192.0.2.1").is_none(), "one address, however it is written");
        let others = ["2001:db8::1", "2001:db8::ffff:1"].map(|address| admit(address).expect("room"));
        drop(first);
        assert!(admit("2001:db8::2").is_none(), "one network of IPv6");
        let again = admit("192.0.2.1").expect("there is room again");
        assert!(admit("198.51.100.1").is_none(), "four in all");
        drop((mapped, others, again));
        let present = strangers.lock();
        assert_eq!((present.all, present.by_address.len()), (0, 0), "nothing is kept of who has gone");
    }
}
