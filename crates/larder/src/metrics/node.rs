//! What a node tells: its proxy, its links, its backends, and how it stands with control.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use backend::Backend;
use cluster::map::Epoch;
use larder::member::Members;
use node::view::View;
use prometheus_client::registry::Registry;
use proxy::cluster_handle::ClusterHandle;
use proxy::link_usage::MemberLinks;
use proxy::usage::ProxyUsage;
use wire::control::usage::{Figure, FigureKind};

use super::{Metric, registry};

/// The parts of a node that count.
pub(crate) struct NodeParts {
    pub(crate) proxy: Arc<ProxyUsage>,
    pub(crate) links: ClusterHandle,
    pub(crate) backends: Vec<Arc<Backend>>,
    pub(crate) members: Arc<Members>,
    pub(crate) view: Arc<View>,
}

const REQUEST_SECONDS: &str = "larder_proxy_request_seconds";

pub(super) fn catalogue() -> Vec<Metric> {
    let mut metrics = vec![
        Metric::gauge("larder_proxy_connections", "Client connections that are open"),
        Metric::counter(
            "larder_proxy_accepted_connections",
            "Client connections that were accepted",
        ),
        Metric::counter(
            "larder_proxy_refused_connections",
            "Those refused because there were too many",
        ),
        Metric::counter(
            "larder_proxy_blocked_connections",
            "Those refused or closed because a rule blocks their address",
        ),
        Metric::counter("larder_proxy_authentication_failures", "Logins that were wrong"),
        Metric::histogram(
            REQUEST_SECONDS,
            "How long clients waited for their answers; one turn of a connection in 8 is timed",
        ),
        Metric::gauge("larder_store_memory_bytes", "Memory that a backend may take").by("backend"),
        Metric::gauge("larder_store_guaranteed_bytes", "Memory promised to caches").by("backend"),
        Metric::gauge("larder_store_used_bytes", "Memory that items and indexes take")
            .by("backend"),
        Metric::gauge("larder_store_caches", "Caches that a backend has a part of").by("backend"),
        Metric::gauge("larder_store_owned_slots", "Slots that a backend serves").by("backend"),
        Metric::gauge("larder_node_revision", "Revision of the node's copy of the records"),
        Metric::gauge("larder_node_epoch", "Epoch of the topology that requests are routed by"),
        Metric::gauge("larder_node_settled_epoch", "Newest epoch that every node routes by"),
        Metric::gauge("larder_node_control_away", "1 while control is not heard, else 0"),
    ];
    for (name, _) in MemberLinks::default().figures() {
        let help = "Links to the backends of other nodes; see crates/proxy/src/link_usage.rs";
        let metric = match name.strip_suffix("_total") {
            Some(name) => Metric::counter(&format!("larder_{name}"), help),
            None => Metric::gauge(&format!("larder_{name}"), help),
        };
        metrics.push(metric.by("member"));
    }
    for &figure in Figure::ALL {
        let (name, help) =
            (of_all_caches(figure), format!("Sum of `{}` over all caches here", figure.name()));
        metrics.push(match figure.kind() {
            FigureKind::Gauge => Metric::gauge(&name, &help),
            FigureKind::Counter | FigureKind::Everywhere => Metric::counter(&name, &help),
        });
    }
    metrics
}

fn of_all_caches(figure: Figure) -> String {
    format!("larder_caches_{}", figure.name())
}

pub(crate) fn of_node(parts: NodeParts) -> Registry {
    registry(catalogue(), move |readings| {
        let proxy = &parts.proxy;
        readings.put("larder_proxy_connections", proxy.connections() as u64);
        let totals = [
            ("larder_proxy_accepted_connections", &proxy.connections_total),
            ("larder_proxy_refused_connections", &proxy.connections_refused_total),
            ("larder_proxy_blocked_connections", &proxy.connections_blocked_total),
            ("larder_proxy_authentication_failures", &proxy.authentication_failures_total),
        ];
        totals.into_iter().for_each(|(name, total)| readings.put(name, total.load(Relaxed)));
        let latency = &proxy.latency;
        readings.put_histogram(REQUEST_SECONDS, &latency.histogram(), latency.nanoseconds());
        for (member, _, links) in parts.links.usage().members() {
            for (name, count) in links.figures() {
                let name = name.strip_suffix("_total").unwrap_or(name);
                readings.put_for(&format!("larder_{name}"), member.as_str(), count);
            }
        }
        for (number, backend) in parts.backends.iter().enumerate() {
            let label = number.to_string();
            let stats = backend.store_stats();
            for (name, value) in [
                ("larder_store_memory_bytes", stats.memory_bytes),
                ("larder_store_guaranteed_bytes", stats.guaranteed_bytes),
                ("larder_store_used_bytes", stats.used_bytes),
                ("larder_store_caches", stats.caches),
                ("larder_store_owned_slots", backend.slots().owned() as u64),
            ] {
                readings.put_for(name, &label, value);
            }
        }
        let figures = parts.members.figures();
        for &figure in Figure::ALL {
            readings.put(&of_all_caches(figure), figures.get(figure));
        }
        let epochs = parts.view.epochs();
        let settled = epochs.settled.map_or(0, Epoch::get);
        readings.put("larder_node_revision", parts.view.revision());
        readings.put("larder_node_epoch", epochs.current().get());
        readings.put("larder_node_settled_epoch", settled);
        readings.put("larder_node_control_away", parts.view.is_stale().into());
    })
}
