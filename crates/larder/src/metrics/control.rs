//! What a control plane tells: its records, its nodes, what is wrong with them, and caches if wished.

use std::sync::Arc;

use control::control::Control;
use control::push::PushControl;
use control::push::diagnosis::Fault;
use prometheus_client::registry::Registry;
use wire::control::usage::{Figure, FigureKind};

use super::{Metric, registry};

pub(super) fn catalogue() -> Vec<Metric> {
    let mut metrics = vec![
        Metric::gauge("larder_control_leading", "1 while this process may change anything, else 0"),
        Metric::gauge("larder_control_revision", "Newest revision of the records"),
        Metric::gauge("larder_control_caches", "Caches that there are"),
        Metric::gauge("larder_control_credentials", "Credentials that there are"),
        Metric::gauge("larder_control_epoch", "Epoch of the topology in force"),
        Metric::gauge("larder_control_settled_epoch", "Newest epoch that every node routes by"),
        Metric::gauge("larder_control_nodes", "Nodes by whether they are connected").by("state"),
        Metric::gauge(
            "larder_control_behind_nodes",
            "Nodes that have not acknowledged the newest revision",
        ),
        Metric::gauge("larder_control_findings", "What `larder cluster diagnose` finds")
            .by("fault"),
    ];
    for &figure in Figure::ALL {
        let name = of_cache(figure);
        let help = format!("`{}` of one cache, by its number", figure.name());
        let metric = match figure.kind() {
            FigureKind::Gauge => Metric::gauge(&name, &help),
            FigureKind::Counter | FigureKind::Everywhere => Metric::counter(&name, &help),
        };
        metrics.push(metric.by("cache"));
    }
    metrics
}

fn of_cache(figure: Figure) -> String {
    format!("larder_cache_{}", figure.name())
}

/// `caches_max`: how many caches are told of one by one, those that hold most first.
pub(crate) fn of_control(
    control: Arc<Control>,
    push: Arc<PushControl>,
    caches_max: usize,
) -> Registry {
    registry(catalogue(), move |readings| {
        let (revision, _) = push.publisher.head();
        let (caches, credentials) = push.publisher.counts();
        let announced = push.announced.borrow().clone();
        let nodes = push.fleet.nodes();
        let connected = nodes.values().filter(|node| node.session().is_some()).count();
        let behind = nodes.values().filter(|node| node.acknowledged < revision).count();
        let epoch = announced.committed.as_ref().map_or(0, |it| it.epoch().get());
        readings.put("larder_control_leading", (*control.leading().borrow()).into());
        readings.put("larder_control_revision", revision.get());
        readings.put("larder_control_caches", caches as u64);
        readings.put("larder_control_credentials", credentials as u64);
        readings.put("larder_control_epoch", epoch);
        readings.put("larder_control_settled_epoch", announced.settled.get());
        readings.put_for("larder_control_nodes", "connected", connected as u64);
        readings.put_for("larder_control_nodes", "away", (nodes.len() - connected) as u64);
        readings.put("larder_control_behind_nodes", behind as u64);
        let findings = push.diagnose();
        for fault in Fault::ALL {
            let found = findings.iter().filter(|finding| finding.fault == fault).count();
            readings.put_for("larder_control_findings", fault.name(), found as u64);
        }
        if caches_max == 0 {
            return;
        }
        let mut usages = control.usage_of_nodes().caches();
        usages.sort_by_key(|(_, usage)| std::cmp::Reverse(usage.figures.get(Figure::Bytes)));
        for (cache, usage) in usages.into_iter().take(caches_max) {
            let label = cache.get().to_string();
            for &figure in Figure::ALL {
                let value = match figure.kind() {
                    FigureKind::Gauge => usage.figures.get(figure),
                    FigureKind::Counter | FigureKind::Everywhere => usage.grown.get(figure),
                };
                readings.put_for(&of_cache(figure), &label, value);
            }
        }
    })
}
