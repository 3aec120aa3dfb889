//! The timeouts of one core, on one coarse wheel instead of a runtime timer per request.
//!
//! A task owns one [`Timer`] and moves its deadline from phase to phase; extending it is a store, because the entry
//! stays where it is and is only looked at again when its slot comes round. When the deadline passes, the task is
//! woken and asks [`Timer::expired`]. Resolution is one [`TICK`]; a timer never fires early. A wheel on which nothing
//! was set for a tick sleeps until something is due: connections that only idle cost no wake-ups.
//!
//! Invariant: an entry with a deadline is linked in exactly one slot, at a tick not after its deadline.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Resolution.
pub(crate) const TICK: Duration = Duration::from_millis(100);
const TICK_NANOS: u32 = TICK.subsec_nanos();
const TICKS_PER_SECOND: u64 = 10;
/// Slots; a later deadline waits in the last one and is linked again from there.
const SLOTS: usize = 512;
const NIL: u32 = u32::MAX;
const NEVER: u64 = u64::MAX;

/// The wheel.
#[derive(Debug)]
pub(crate) struct Wheel {
    start: Instant,
    /// Current tick, as of the last advance.
    now: Cell<u64>,
    inner: RefCell<Inner>,
    /// A deadline was set since the last tick.
    busy: Cell<bool>,
    /// Not turning: `now` is old, and an earlier deadline has to wake it.
    asleep: Cell<bool>,
    armed: Notify,
}

#[derive(Debug)]
struct Inner {
    /// First entry per slot.
    heads: Vec<u32>,
    entries: Vec<Entry>,
    /// First of the unused entries, chained by `next`.
    free: u32,
    linked: usize,
}

#[derive(Debug)]
struct Entry {
    deadline: u64,
    /// Tick at which the slot it is linked in comes round; `NEVER`: not linked.
    due: u64,
    next: u32,
    previous: u32,
    waker: Option<Waker>,
}

impl Wheel {
    /// An empty wheel. It stands still until [`Wheel::run`] is polled.
    pub(crate) fn new() -> Rc<Self> {
        let inner = Inner { heads: vec![NIL; SLOTS], entries: Vec::new(), free: NIL, linked: 0 };
        Rc::new(Wheel {
            start: Instant::now(),
            now: Cell::new(0),
            inner: RefCell::new(inner),
            busy: Cell::new(false),
            asleep: Cell::new(false),
            armed: Notify::new(),
        })
    }

    /// A timer without a deadline, for the task that polls with this waker.
    pub(crate) fn timer(self: &Rc<Self>, waker: &Waker) -> Timer {
        let entry =
            Entry { deadline: NEVER, due: NEVER, next: NIL, previous: NIL, waker: Some(waker.clone()) };
        let key = self.inner.borrow_mut().insert(entry);
        Timer { wheel: Rc::clone(self), key }
    }

    /// Turns the wheel for ever.
    pub(crate) async fn run(self: Rc<Self>) {
        loop {
            if self.busy.take() {
                tokio::time::sleep_until(self.at(self.now.get() + 1)).await;
            } else {
                self.asleep.set(true);
                let next = self.inner.borrow().next_due(self.now.get());
                match next.map(|tick| tokio::time::timeout_at(self.at(tick), self.armed.notified())) {
                    Some(armed) => {
                        let _due_or_armed = armed.await;
                    }
                    None => self.armed.notified().await,
                }
                self.asleep.set(false);
            }
            self.advance_to(self.elapsed());
        }
    }

    fn at(&self, tick: u64) -> Instant {
        self.start + TICK * u32::try_from(tick).unwrap_or(u32::MAX)
    }

    /// Wakes every task that owns a timer, whatever its deadline: they look at what else has changed.
    pub(crate) fn wake_all(&self) {
        for waker in self.inner.borrow().entries.iter().filter_map(|entry| entry.waker.as_ref()) {
            waker.wake_by_ref();
        }
    }

    fn advance_to(&self, target: u64) {
        let mut inner = self.inner.borrow_mut();
        // After a long stop every slot is visited once.
        let mut tick = (self.now.get() + 1).max(target.saturating_sub(SLOTS as u64 - 1));
        self.now.set(target.max(self.now.get()));
        while tick <= target {
            inner.turn(tick, target);
            tick += 1;
        }
    }

    fn elapsed(&self) -> u64 {
        (self.start.elapsed().as_millis() / TICK.as_millis()) as u64
    }

    fn set(&self, key: u32, after: Duration) {
        self.busy.set(true);
        if self.asleep.replace(false) {
            // Not just `now`: what is due by then must not be passed over.
            self.advance_to(self.elapsed());
            self.armed.notify_one();
        }
        let mut inner = self.inner.borrow_mut();
        let ticks = after.as_secs() * TICKS_PER_SECOND + u64::from(after.subsec_nanos().div_ceil(TICK_NANOS));
        // One more: the current tick may be almost over.
        let deadline = self.now.get() + ticks + 1;
        let entry = &mut inner.entries[key as usize];
        entry.deadline = deadline;
        if entry.due > deadline {
            inner.unlink(key);
            inner.link(key, self.now.get());
        }
    }
}

impl Inner {
    fn insert(&mut self, entry: Entry) -> u32 {
        match self.free {
            NIL => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
            key => {
                self.free = self.entries[key as usize].next;
                self.entries[key as usize] = entry;
                key
            }
        }
    }

    fn remove(&mut self, key: u32) {
        self.unlink(key);
        let entry = &mut self.entries[key as usize];
        entry.waker = None;
        entry.next = self.free;
        self.free = key;
    }

    fn link(&mut self, key: u32, now: u64) {
        let due = self.entries[key as usize].deadline.min(now + SLOTS as u64 - 1);
        let slot = due as usize % SLOTS;
        let next = std::mem::replace(&mut self.heads[slot], key);
        if next != NIL {
            self.entries[next as usize].previous = key;
        }
        let entry = &mut self.entries[key as usize];
        (entry.due, entry.next, entry.previous) = (due, next, NIL);
        self.linked += 1;
    }

    fn unlink(&mut self, key: u32) {
        let Entry { due, next, previous, .. } = self.entries[key as usize];
        if due == NEVER {
            return;
        }
        match previous {
            NIL => self.heads[due as usize % SLOTS] = next,
            previous => self.entries[previous as usize].next = next,
        }
        if next != NIL {
            self.entries[next as usize].previous = previous;
        }
        self.entries[key as usize].due = NEVER;
        self.linked -= 1;
    }

    /// The next tick whose slot is not empty.
    fn next_due(&self, now: u64) -> Option<u64> {
        (now + 1..now + SLOTS as u64).find(|tick| self.heads[*tick as usize % SLOTS] != NIL)
    }

    /// Empties one slot: wakes what is over, links the rest again.
    fn turn(&mut self, tick: u64, now: u64) {
        let mut key = self.heads[tick as usize % SLOTS];
        while key != NIL {
            let entry = &self.entries[key as usize];
            let (next, over) = (entry.next, entry.deadline <= now);
            if over && let Some(waker) = &entry.waker {
                waker.wake_by_ref();
            }
            self.unlink(key);
            if !over && self.entries[key as usize].deadline != NEVER {
                self.link(key, now);
            }
            key = next;
        }
    }
}

/// The timer of one task.
#[derive(Debug)]
pub(crate) struct Timer {
    wheel: Rc<Wheel>,
    key: u32,
}

impl Timer {
    /// Moves the deadline to so long from now; `None`: no deadline.
    pub(crate) fn set(&self, after: Option<Duration>) {
        match after {
            Some(after) => self.wheel.set(self.key, after),
            // Left linked: it is forgotten when its slot comes round.
            None => self.wheel.inner.borrow_mut().entries[self.key as usize].deadline = NEVER,
        }
    }

    /// The deadline has passed.
    #[inline]
    pub(crate) fn expired(&self) -> bool {
        self.wheel.inner.borrow().entries[self.key as usize].deadline <= self.wheel.now.get()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.wheel.inner.borrow_mut().remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    /// The tick at which a timer of so many milliseconds fires on a wheel that stands at `now`.
    fn fires_after(millis: u64, now: u64) -> u64 {
        let wheel = Wheel::new();
        wheel.advance_to(now);
        let timer = wheel.timer(Waker::noop());
        timer.set(Some(Duration::from_millis(millis)));
        let fired = (now..).find(|&tick| {
            wheel.advance_to(tick);
            timer.expired()
        });
        assert_eq!(wheel.inner.borrow().linked, 0);
        fired.expect("every timer fires") - now
    }

    #[test]
    fn a_timer_fires_within_two_ticks_and_never_early() {
        for millis in [1_u64, 99, 100, 101, 1_000, 51_100, 51_300, 75_000, 300_000] {
            for now in [0, 1, 511, 512, 100_000] {
                // It may have been set at the very end of the tick.
                let ticks = millis.div_ceil(100);
                assert_eq!(fires_after(millis, now), ticks + 1, "{millis} ms at tick {now}");
            }
        }
    }

    #[test]
    fn extending_and_shortening_move_the_deadline() {
        let wheel = Wheel::new();
        let timer = wheel.timer(Waker::noop());
        timer.set(Some(Duration::from_secs(1)));
        timer.set(Some(Duration::from_secs(3)));
        wheel.advance_to(20);
        assert!(!timer.expired(), "extended");
        timer.set(Some(Duration::from_millis(100)));
        wheel.advance_to(23);
        assert!(timer.expired(), "shortened");
        timer.set(None);
        assert!(!timer.expired());
        wheel.advance_to(36_000);
        assert_eq!(wheel.inner.borrow().linked, 0, "a cleared one is forgotten");
    }

    #[test]
    fn a_dropped_timer_leaves_no_trace() {
        let wheel = Wheel::new();
        let timers: Vec<_> = (0..10).map(|_| wheel.timer(Waker::noop())).collect();
        timers.iter().for_each(|timer| timer.set(Some(Duration::from_secs(5))));
        assert_eq!(wheel.inner.borrow().linked, 10);
        drop(timers);
        assert_eq!(wheel.inner.borrow().linked, 0);
        let again: Vec<_> = (0..10).map(|_| wheel.timer(Waker::noop())).collect();
        assert_eq!((wheel.inner.borrow().entries.len(), again.len()), (10, 10), "entries are used again");
    }

    #[test]
    fn a_wheel_that_stood_still_for_long_fires_everything_that_is_over() {
        let wheel = Wheel::new();
        let timers: Vec<_> = (1..100).map(|_| wheel.timer(Waker::noop())).collect();
        for (second, timer) in timers.iter().enumerate() {
            timer.set(Some(Duration::from_secs(second as u64)));
        }
        wheel.advance_to(5_000);
        assert!(timers.iter().all(Timer::expired));
        assert_eq!(wheel.inner.borrow().linked, 0);
    }

    #[test]
    fn the_next_slot_with_something_in_it_is_found() {
        let wheel = Wheel::new();
        let (idle, other) = (wheel.timer(Waker::noop()), wheel.timer(Waker::noop()));
        let next = || wheel.inner.borrow().next_due(wheel.now.get());
        assert_eq!(next(), None);
        idle.set(Some(Duration::from_secs(40)));
        assert_eq!(next(), Some(401));
        other.set(Some(Duration::from_secs(2)));
        assert_eq!(next(), Some(21));
        wheel.advance_to(21);
        assert!(other.expired() && !idle.expired());
        assert_eq!(next(), Some(401));
        idle.set(Some(Duration::from_secs(3_600)));
        assert_eq!(next(), Some(401), "looked at again then");
        wheel.advance_to(401);
        assert_eq!(next(), Some(401 + SLOTS as u64 - 1));
    }

    #[tokio::test]
    async fn a_wheel_that_is_left_alone_sleeps_and_an_earlier_deadline_wakes_it() {
        let wheel = Wheel::new();
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let (idle, other) = (wheel.timer(&waker), wheel.timer(&waker));
        idle.set(Some(Duration::from_secs(3_600)));
        let run = Rc::clone(&wheel).run();
        tokio::pin!(run);
        let asleep = async {
            while !wheel.asleep.get() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { () = &mut run => {} () = asleep => {} }
        let began = Instant::now();
        other.set(Some(Duration::from_millis(50)));
        assert!(!wheel.asleep.get());
        let over = poll_fn(|_| if other.expired() { Poll::Ready(()) } else { Poll::Pending });
        tokio::select! { () = &mut run => {} () = over => {} }
        assert!(began.elapsed() >= Duration::from_millis(50) && !idle.expired());
    }

    #[tokio::test]
    async fn a_turning_wheel_wakes_the_task_whose_time_is_over() {
        let wheel = Wheel::new();
        let began = Instant::now();
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let timer = wheel.timer(&waker);
        timer.set(Some(Duration::from_millis(50)));
        let wait = poll_fn(|_| if timer.expired() { Poll::Ready(()) } else { Poll::Pending });
        tokio::select! { () = wait => {} () = Rc::clone(&wheel).run() => {} }
        assert!(began.elapsed() >= Duration::from_millis(50));
    }
}
