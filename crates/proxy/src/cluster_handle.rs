//! How the rest of the process tells a proxy about its cluster, and hears what it can reach.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use cluster::comeback::Says;
use cluster::member::{Incarnation, MemberName};
use wire::control::name::NodeName;
use wire::control::topology::{MemberSet, Topology};

use crate::link_usage::LinkUsage;
use crate::tls::LinkTls;
use crate::view::{ClusterView, Place, ViewIdentity};

/// The cluster as the loops of one proxy follow it. Without a view every item is in this process.
/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ClusterHandle(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// `None`: links are plain.
    tls: Option<LinkTls>,
    view: ArcSwapOption<ClusterView>,
    usage: Arc<LinkUsage>,
    /// Grows with everything that is new, so that a loop need look at one number only.
    news: AtomicU64,
    /// How often links were to be made anew.
    refreshes: AtomicU64,
    /// One for each loop; set when the proxy starts.
    wakers: OnceLock<Vec<mio::Waker>>,
}

impl ClusterHandle {
    /// Of a cluster whose links are secured so; plain, if not at all.
    pub fn new(tls: Option<LinkTls>) -> Self {
        ClusterHandle(Arc::new(Inner { tls, ..Inner::default() }))
    }

    pub(crate) fn link_tls(&self) -> Option<&LinkTls> {
        self.0.tls.as_ref()
    }

    /// Gives the proxy another view. Its loops take it up at once.
    pub fn set_view(&self, view: ClusterView) {
        self.0.view.store(Some(Arc::new(view)));
        self.tell_all();
    }

    pub fn view(&self) -> Option<Arc<ClusterView>> {
        self.0.view.load_full()
    }

    /// Makes every link to other nodes anew, one at a time, without failing a request.
    pub fn refresh_links(&self) {
        self.0.refreshes.fetch_add(1, Relaxed);
        self.tell_all();
    }

    pub(crate) fn refreshes(&self) -> u64 {
        self.0.refreshes.load(Relaxed)
    }

    /// Whether every loop of the proxy has a connection to this run of the member that was greeted
    /// and answered, and it is not silent now. `false` before the proxy has started.
    pub fn is_connected(&self, member: &MemberName, incarnation: Incarnation) -> bool {
        let links = self.0.usage.member(member, incarnation);
        let connected = links.loops_connected.load(Relaxed);
        let is_silent = 0 < links.loops_silent.load(Relaxed);
        self.0.wakers.get().is_some_and(|wakers| wakers.len() <= connected && !is_silent)
    }

    /// The members of a topology that this proxy reaches: those of its own process, and those that
    /// it [is connected to](Self::is_connected). A node acknowledges PREPARE with it.
    pub fn reached(&self, topology: &Topology, identity: &ViewIdentity) -> MemberSet {
        let mut reached = MemberSet::NONE;
        for (index, member) in topology.members().iter().enumerate() {
            let is_reached = match identity.view_member(member).place {
                Place::Here { .. } => true,
                Place::There { .. } => self.is_connected(&member.name, member.incarnation),
                Place::Refused { .. } => false,
            };
            if is_reached {
                reached.insert(index);
            }
        }
        reached
    }

    /// What another node says of this one: whether it knows of an epoch newer than this topology's in
    /// which this node has no part.
    pub fn says(&self, node: &NodeName, topology: &Topology) -> Says {
        let mut says = Says::Nothing;
        for member in topology.members().iter().filter(|member| member.node == *node) {
            let links = self.0.usage.known(&member.name, member.incarnation);
            let Some(links) = links else { continue };
            // Connected first: the greeting is noted before the link counts.
            let is_connected = 0 < links.loops_connected.load(Acquire);
            if topology.epoch().get() < links.without_us.load(Acquire) {
                return Says::Without;
            }
            if is_connected {
                says = Says::With;
            }
        }
        says
    }

    /// What is counted about the links to each member.
    pub fn usage(&self) -> &Arc<LinkUsage> {
        &self.0.usage
    }

    pub(crate) fn set_wakers(&self, wakers: Vec<mio::Waker>) -> io::Result<()> {
        self.0.wakers.set(wakers).map_err(|_| io::Error::other("the cluster has a proxy already"))
    }

    /// Grows whenever the view is another, or links shall be made anew.
    #[inline]
    pub(crate) fn news(&self) -> u64 {
        self.0.news.load(Acquire)
    }

    /// Tells every loop that there is something new.
    fn tell_all(&self) {
        self.0.news.fetch_add(1, Release);
        self.wake_all();
    }

    pub(crate) fn wake_all(&self) {
        for waker in self.0.wakers.get().into_iter().flatten() {
            // Unwoken, a loop sees what is new at its next sweep.
            drop(waker.wake());
        }
    }
}
