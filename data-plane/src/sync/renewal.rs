//! The next certificate, asked for over the stream that the present one has opened: in the middle of its life, or when
//! the control plane says that its root goes. With the answer the stream is left for a new one.

use std::future::pending;
use std::time::Duration;

use gateway_proto::wire;
use jiff::{SignedDuration, Timestamp};
use rand::RngExt as _;
use tokio::time::sleep;
use wire::data_plane_message::Message;

use crate::identity::{Ask, Passport};

/// The clock is looked at so often: it may be set, and a machine may sleep.
const LOOK: Duration = Duration::from_secs(60);
/// Shortest and longest wait for an answer.
const PATIENCE: (SignedDuration, SignedDuration) =
    (SignedDuration::from_secs(1), SignedDuration::from_mins(5));

/// A stream is not left sooner, whatever its certificate says.
const STAY: SignedDuration = SignedDuration::from_millis(500);

/// When the next certificate is due on one stream, and what was asked for.
pub(super) struct Renewal<'a> {
    passport: &'a Passport,
    due: Option<Timestamp>,
    asked: Option<Ask>,
}

impl<'a> Renewal<'a> {
    pub(super) fn new(passport: &'a Passport, now: Timestamp) -> Self {
        let soonest = now.checked_add(STAY).unwrap_or(now);
        Renewal { passport, due: passport.renew_at().map(|due| due.max(soonest)), asked: None }
    }

    /// Waits until it is time to ask.
    pub(super) async fn due(&self) {
        let Some(due) = self.due else { return pending().await };
        loop {
            let left = due.duration_since(Timestamp::now());
            if left <= SignedDuration::ZERO {
                return;
            }
            sleep(Duration::try_from(left).map_or(LOOK, |left| left.min(LOOK))).await;
        }
    }

    /// Asks; again if there is no answer after an eighth of what is left. With the same key: the answer to what was asked
    /// before may still come.
    pub(super) fn ask(&mut self, now: Timestamp) -> Option<Message> {
        let left = self.passport.expires().map_or(SignedDuration::ZERO, |end| end.duration_since(now));
        self.due = now.checked_add((left / 8).clamp(PATIENCE.0, PATIENCE.1)).ok();
        let ask = self.asked.take().map_or_else(|| self.passport.ask(), Ok);
        let ask = ask.and_then(|ask| Ok((ask.request()?, ask)));
        match ask {
            Ok((request, ask)) => {
                self.asked = Some(ask);
                Some(Message::Renew(wire::Renew { request }))
            }
            Err(error) => {
                tracing::error!(%error, "cannot ask for the next certificate");
                None
            }
        }
    }

    /// Takes other roots, and asks sooner if the one of our certificate goes. What is said then.
    pub(super) fn trust(&mut self, trust: &wire::Trust, now: Timestamp) -> Option<Message> {
        if trust.renew_within_ms > 0 && self.due.is_some() {
            let within = rand::rng().random_range(0..=trust.renew_within_ms);
            let soon = now.checked_add(SignedDuration::from_millis(within.into())).unwrap_or(now);
            self.due = self.due.map(|due| due.min(soon));
        }
        match self.passport.take_roots(&trust.roots) {
            Ok(trusts) => {
                tracing::info!(roots = trusts.roots.len(), "took the roots of the control plane's CA");
                Some(Message::Trusts(trusts))
            }
            Err(error) => {
                tracing::error!(%error, "cannot take the roots of the control plane's CA");
                None
            }
        }
    }

    /// Takes the answer; whether there is a new certificate to open a stream with.
    pub(super) fn issued(&mut self, issued: wire::IssuedCertificate) -> bool {
        // Not asked for: nothing to use it with.
        let Some(ask) = self.asked.take() else { return false };
        match self.passport.renewed(ask, issued) {
            Ok(()) => {
                tracing::info!("the certificate is renewed: moving to a new stream");
                true
            }
            Err(error) => {
                tracing::error!(%error, "the next certificate cannot be used");
                false
            }
        }
    }
}
