//! A TCP relay between two parts of the system that a test can stall, cut and mend: what `tc netem` would do, which
//! the kernel here does not have.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the relay does with bytes and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Everything flows.
    Clear,
    /// Connections stay open and new ones are taken, but no byte moves.
    Stalled,
    /// Connections are reset, new ones too.
    Cut,
}

/// A running relay; everything stops when it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Relays a free loopback port to `target`.
    ///
    /// # Errors
    /// When it cannot bind.
    pub async fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (weather, _) = watch::channel(Weather::Clear);
        let accepting = tokio::spawn(accept(listener, target, weather.clone()));
        Ok(Relay { address, weather, accepting })
    }

    /// Where to connect instead of to the target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather for all connections at once.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.weather.send_replace(Weather::Cut);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, weather: watch::Sender<Weather>) {
    while let Ok((near, _)) = listener.accept().await {
        let weather = weather.subscribe();
        tokio::spawn(async move {
            if *weather.borrow() == Weather::Cut {
                return reset(&near);
            }
            let Ok(far) = TcpStream::connect(target).await else { return reset(&near) };
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            let there = tokio::spawn(carry(near_in, far_out, weather.clone()));
            let back = tokio::spawn(carry(far_in, near_out, weather));
            let _both = tokio::join!(there, back);
        });
    }
}

/// Close with a reset instead of a clean end, as a dead link would look after its time out.
fn reset(stream: &TcpStream) {
    // Failing means that the peer was faster; either way it is closed.
    let _closed = stream.set_zero_linger();
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut weather: watch::Receiver<Weather>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let now = *weather.borrow_and_update();
        let moved = match now {
            Weather::Cut => return reset(to.as_ref()),
            // The sender going away is a cut: the relay was dropped.
            Weather::Stalled => match weather.changed().await {
                Ok(()) => continue,
                Err(_) => return reset(to.as_ref()),
            },
            Weather::Clear => tokio::select! {
                read = from.read(&mut buffer) => read,
                _ = weather.changed() => continue,
            },
        };
        match moved {
            Ok(count) if count > 0 => {
                if to.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
            // A clean end is carried on; the other direction may still flow.
            Ok(_) => {
                let _ended = to.shutdown().await;
                return;
            }
            Err(_) => return reset(to.as_ref()),
        }
    }
}
