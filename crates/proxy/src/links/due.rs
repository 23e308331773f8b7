//! When something is due, to the microsecond.
//!
//! A real event loop looks every millisecond while requests are on their way ([`Links::next_wake`]): it is
//! awake then anyway, and need not look at each of them. A simulator would play these looks by the million
//! for nothing.

use super::peer::{Peer, Phase};
use super::request::{Request, Stage};
use super::{CONNECT_TIMEOUT, DEAD, HEDGE_MIN, KEEP_ALIVE, LINKS_PER_PEER, Links, Micros};

impl Links {
    /// The first moment at which [`Links::tick`] or [`Links::next_dial`] may do something, if nothing else
    /// happens before; never before the next look. `None` when only an event can change that.
    pub(crate) fn next_due(&self, now: Micros) -> Option<Micros> {
        if !self.refreshing.is_empty() {
            return self.next_wake(now);
        }
        let of_requests = self.requests.iter().filter_map(|request| self.due_of(request)).min();
        let of_links = self.peers.iter().filter_map(|(_, peer)| self.due_of_links(peer, now)).min();
        let due = of_requests.into_iter().chain(of_links).min()?;
        Some(due.max(self.next_tick))
    }

    fn due_of(&self, request: &Request) -> Option<Micros> {
        let sooner = match request.stage {
            Stage::Over => return None,
            Stage::Parked { until } => Some(until),
            Stage::Sent => self.silence_or_hedge(request),
            Stage::Queued { .. } | Stage::Here { .. } | Stage::Behind => None,
        };
        Some(sooner.map_or(request.deadline, |sooner| sooner.min(request.deadline)))
    }

    fn silence_or_hedge(&self, request: &Request) -> Option<Micros> {
        let copy = request.copies.iter().flatten().next()?;
        let peer = &self.peers[copy.peer];
        let silence = self.settings.silence.as_micros() as Micros;
        let silent = (!peer.is_silent).then(|| copy.at.max(peer.heard) + silence);
        let may_hedge = self.settings.hedge
            && request.copies() == 1
            && request.is_read
            && !request.is_held_to
            && request.asker.is_some()
            && peer.other(copy.link).is_some();
        let hedge_after = (peer.latency.micros() * 3 / 2).max(HEDGE_MIN);
        let hedge = may_hedge.then_some(copy.at + hedge_after);
        silent.into_iter().chain(hedge).min()
    }

    fn due_of_links(&self, peer: &Peer, now: Micros) -> Option<Micros> {
        let silence = self.settings.silence.as_micros() as Micros;
        let stuck = (self.settings.request_timeout.as_micros() as Micros).min(DEAD);
        let due = |link: usize| {
            let on = &peer.links[link];
            match on.phase {
                Phase::Down { retry_at, .. } => retry_at,
                Phase::Coming { since, .. } => since + CONNECT_TIMEOUT,
                Phase::Up if on.in_flight == 0 => on.heard + KEEP_ALIVE,
                Phase::Up => {
                    let stuck_at = on.moved + stuck;
                    let is_heard = now.max(stuck_at) < peer.heard + silence;
                    let stuck_at = is_heard.then_some(stuck_at);
                    let is_free = |other: usize| peer.links[other].in_flight == 0;
                    let asks = !peer.is_silent && peer.other(link).is_some_and(is_free);
                    let sign_at = asks.then(|| on.heard.max(peer.heard) + silence / 2);
                    stuck_at.into_iter().chain(sign_at).fold(on.heard + DEAD, Micros::min)
                }
            }
        };
        (0..LINKS_PER_PEER).map(due).min()
    }
}
