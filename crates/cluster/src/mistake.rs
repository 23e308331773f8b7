//! Mistakes that can be built in on purpose, so that the simulator can show that it would find them.
//!
//! A law that never fails may be blind. With the feature `mistakes` each thread may make one mistake;
//! without it every question is answered `false` by the compiler, and nothing of this is left.
//!
//! It stands in this crate because all that decide about slots, links and epochs use it already.

/// What could be done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// A backend executes requests on slots that are not its own.
    ServesAnySlot,
    /// A backend owns what its map says as soon as it hears of it.
    TrustsTheMap,
    /// A backend serves a slot that it waits for as soon as it is asked: that a proxy was sent here is
    /// taken for the right.
    TrustsTheHint,
    /// A token serves any run of the member, not only the one it was given to.
    TakesAnyToken,
    /// A slot that comes back is served with what was left of it.
    SweepsNothing,
    /// Control settles an epoch before every member has applied it.
    SettlesEarly,
    /// A node that is only silent is taken for dead, though it has links to others.
    GivesUpTheSilent,
    /// Replies are taken to come in the order of requests; nobody looks at their ids and caches.
    TrustsTheOrderOfReplies,
    /// Nobody looks at the checksums of frames.
    ChecksNoChecksum,
    /// A write that may have run is sent again when its connection is lost.
    RepeatsWrites,
    /// A late get is asked again though a write of the same client is on its way.
    HedgesPastWrites,
    /// A cache's part of its limit is not heeded.
    IgnoresLimits,
    /// A node acknowledges an epoch that it has not written down.
    AcknowledgesBeforeDisk,
    /// A node that was started again serves by its disk without asking the others.
    ServesByDisk,
    /// Values have the same tokens in every process.
    RepeatsTokens,
}

impl Mistake {
    /// Each with its name.
    pub const ALL: &[(Mistake, &str)] = &[
        (Mistake::ServesAnySlot, "serves-any-slot"),
        (Mistake::TrustsTheMap, "trusts-the-map"),
        (Mistake::TrustsTheHint, "trusts-the-hint"),
        (Mistake::TakesAnyToken, "takes-any-token"),
        (Mistake::SweepsNothing, "sweeps-nothing"),
        (Mistake::SettlesEarly, "settles-early"),
        (Mistake::GivesUpTheSilent, "gives-up-the-silent"),
        (Mistake::TrustsTheOrderOfReplies, "trusts-the-order-of-replies"),
        (Mistake::ChecksNoChecksum, "checks-no-checksum"),
        (Mistake::RepeatsWrites, "repeats-writes"),
        (Mistake::HedgesPastWrites, "hedges-past-writes"),
        (Mistake::IgnoresLimits, "ignores-limits"),
        (Mistake::AcknowledgesBeforeDisk, "acknowledges-before-disk"),
        (Mistake::ServesByDisk, "serves-by-disk"),
        (Mistake::RepeatsTokens, "repeats-tokens"),
    ];

    pub fn named(name: &str) -> Option<Mistake> {
        Mistake::ALL.iter().find(|(_, known)| *known == name).map(|(mistake, _)| *mistake)
    }
}

#[cfg(feature = "mistakes")]
std::thread_local! {
    static MADE: std::cell::Cell<Option<Mistake>> = const { std::cell::Cell::new(None) };
}

/// This thread makes this mistake from now on, or none.
#[cfg(feature = "mistakes")]
pub fn make(mistake: Option<Mistake>) {
    MADE.set(mistake);
}

/// Whether this thread makes this mistake.
#[cfg(feature = "mistakes")]
#[inline]
pub fn is_made(mistake: Mistake) -> bool {
    MADE.get() == Some(mistake)
}

/// Whether this thread makes this mistake: never.
#[cfg(not(feature = "mistakes"))]
#[inline(always)]
pub const fn is_made(_mistake: Mistake) -> bool {
    false
}
