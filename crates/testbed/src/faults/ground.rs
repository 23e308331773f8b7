//! Clusters whose nodes are at places of a network that can be bad.

use crate::fleet::Cluster;
use crate::larder::DataDir;
use crate::network::Network;

use super::NotHere;

/// Who is on the bad network, beside the nodes towards each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Far {
    Nobody,
    /// Control, towards every node.
    Control,
    /// Clients, which are this process, towards every node.
    Clients,
}

/// Disks in memory, by their sizes in kilobytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Disks {
    /// Of the node of this number.
    pub(super) node: Option<(usize, u32)>,
    pub(super) control: Option<u32>,
}

/// A control plane here, and a node at each place. None of them is given up while an experiment lasts.
#[track_caller]
pub(super) fn cluster_on(
    network: &Network,
    nodes: usize,
    backends: usize,
    far: Far,
    disks: Disks,
) -> Result<Cluster, NotHere> {
    let settings = [("hold_down_seconds", "3600"), ("metrics_listen", "0.0.0.0:0")];
    let dir = match disks.control {
        Some(kilobytes) => DataDir::on_disk(kilobytes).map_err(NotHere)?,
        None => DataDir::new(),
    };
    let mut cluster = Cluster::start_control_in(dir, "0.0.0.0:0", backends, &settings);
    let port = cluster.control_address().port();
    for number in 0..nodes {
        let place = network.place(number);
        let here = if far == Far::Control { network.here_inside() } else { place.here };
        let clients = if far == Far::Clients { place.inside } else { place.outside };
        let (control, listen) = (format!("{here}:{port}"), format!("{clients}:0"));
        let peers = format!("{}:0", place.inside);
        let arguments = ["--control", &control, "--listen", &listen, "--peers-listen", &peers];
        let (under, name) = (place.under(), format!("n{number}"));
        match disks.node {
            Some((whose, kilobytes)) if whose == number => {
                let added = cluster.add_node_on_disk(&under, &name, &arguments, kilobytes);
                added.map_err(NotHere)?;
            }
            Some(_) | None => cluster.add_node_under(&under, &name, &arguments),
        }
    }
    cluster.wait_until_settled(nodes);
    Ok(cluster)
}
