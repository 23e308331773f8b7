//! Nodes, and the epochs of a cluster's topology: prepared, acknowledged by every member, committed.
//!
//! ```text
//!   prepare ──▶ prepared ── all acknowledged ──▶ committed ── the next one is ──▶ superseded
//!                  │                                 │
//!                  └──▶ aborted                      └──▶ settled (a mark: nobody serves by an older one)
//! ```

use cluster::map::Epoch;

use super::change::{Change, natural};
use super::rows::corrupt;
use super::sql::{Row, Sql};
use super::{Database, rows};
use crate::error::ControlError;
use crate::model::{ClusterId, EpochRecord, EpochState, Node, NodeName};

/// Far above the 70 that the push is measured with; the limit is there so that a mistake in a script
/// that starts nodes is noticed.
pub(crate) const NODES_PER_CLUSTER_MAX: usize = 1_000;

const SELECT_NODE: &str =
    "SELECT id, name, key_digest, incarnation, peers, backends_mib FROM nodes";

fn node(row: &Row) -> Result<Node, ControlError> {
    let peers = row.optional_text(4)?.map(str::parse).transpose();
    Ok(Node {
        name: NodeName::parse(row.text(1)?).map_err(|_| corrupt("node name"))?,
        key_digest: row.array(2)?,
        incarnation: row.int(3)?.cast_unsigned(),
        peers: peers.map_err(|_| corrupt("node address"))?,
        backends_mib: serde_json::from_str(row.text(5)?)
            .map_err(|_| corrupt("list of backends"))?,
    })
}

/// The row's id and what it says.
fn find_node(
    sql: &mut dyn Sql,
    cluster: ClusterId,
    name: &NodeName,
) -> Result<Option<(u64, Node)>, ControlError> {
    let select = format!("{SELECT_NODE} WHERE cluster_id = $1 AND name = $2");
    let row = sql.row(&select, &[cluster.0.into(), name.as_str().into()])?;
    row.map(|row| Ok((row.natural(0)?, node(&row)?))).transpose()
}

const SELECT_EPOCH: &str =
    "SELECT epoch, state, topology, digest, settled_at IS NOT NULL FROM epochs";

fn find_epoch(
    sql: &mut dyn Sql,
    cluster: ClusterId,
    state: EpochState,
) -> Result<Option<EpochRecord>, ControlError> {
    let select = format!("{SELECT_EPOCH} WHERE cluster_id = $1 AND state = $2");
    let row = sql.row(&select, &[cluster.0.into(), state.name().into()])?;
    row.map(|row| with_members(sql, cluster, &row)).transpose()
}

fn newest_epoch(sql: &mut dyn Sql, cluster: ClusterId) -> Result<Epoch, ControlError> {
    let select = "SELECT coalesce(max(epoch), 0) FROM epochs WHERE cluster_id = $1";
    Ok(Epoch::new(natural(sql.number(select, &[cluster.0.into()])?)?))
}

fn with_members(
    sql: &mut dyn Sql,
    cluster: ClusterId,
    row: &Row,
) -> Result<EpochRecord, ControlError> {
    let epoch = row.natural(0)?;
    let select = "SELECT node_name, acknowledged_at IS NOT NULL FROM epoch_members
        WHERE cluster_id = $1 AND epoch = $2 ORDER BY node_name";
    let members = sql.rows(select, &[cluster.0.into(), epoch.into()])?;
    Ok(EpochRecord {
        epoch: Epoch::new(epoch),
        state: EpochState::named(row.text(1)?).ok_or(corrupt("state of an epoch"))?,
        topology: row.bytes(2)?.to_vec(),
        digest: row.array(3)?,
        settled: row.bool(4)?,
        members: members
            .iter()
            .map(|row| {
                let name = NodeName::parse(row.text(0)?).map_err(|_| corrupt("node name"))?;
                Ok((name, row.bool(1)?))
            })
            .collect::<Result<_, ControlError>>()?,
    })
}

impl Database {
    /// A cluster's nodes by name.
    pub(crate) fn nodes(&mut self, cluster: ClusterId) -> Result<Vec<Node>, ControlError> {
        let select = format!("{SELECT_NODE} WHERE cluster_id = $1 ORDER BY name");
        self.sql.rows(&select, &[cluster.0.into()])?.iter().map(node).collect()
    }

    /// The highest epoch that was ever begun; 0 when none was.
    pub(crate) fn newest_epoch(&mut self, cluster: ClusterId) -> Result<Epoch, ControlError> {
        newest_epoch(&mut *self.sql, cluster)
    }

    /// The newest epoch that is settled (0 when none is), and the topologies that were in force since, in
    /// order: that one first, the one in force last.
    pub(crate) fn since_settled(
        &mut self,
        cluster: ClusterId,
    ) -> Result<(Epoch, Vec<Vec<u8>>), ControlError> {
        let select = "SELECT coalesce(max(epoch), 0) FROM epochs
            WHERE cluster_id = $1 AND settled_at IS NOT NULL";
        let settled = natural(self.sql.number(select, &[cluster.0.into()])?)?;
        let select = "SELECT topology FROM epochs WHERE cluster_id = $1 AND epoch >= $2
            AND state IN ('superseded', 'committed') ORDER BY epoch";
        let rows = self.sql.rows(select, &[cluster.0.into(), settled.into()])?;
        let topologies = rows.iter().map(|row| Ok(row.bytes(0)?.to_vec()));
        Ok((Epoch::new(settled), topologies.collect::<Result<_, ControlError>>()?))
    }

    /// The one epoch of a cluster that is in this state; for `Prepared` and `Committed`.
    pub(crate) fn epoch(
        &mut self,
        cluster: ClusterId,
        state: EpochState,
    ) -> Result<Option<EpochRecord>, ControlError> {
        find_epoch(&mut *self.sql, cluster, state)
    }
}

impl Change<'_> {
    /// Writes a node as it says it is: the same name with another incarnation is the same node as
    /// another process, perhaps on another machine. Returns whether that was any news.
    pub(crate) fn put_node(
        &mut self,
        cluster: ClusterId,
        node: &Node,
    ) -> Result<bool, ControlError> {
        rows::find_cluster(self.sql, cluster)?;
        let found = find_node(self.sql, cluster, &node.name)?;
        if found.as_ref().is_some_and(|(_, found)| found == node) {
            return Ok(false);
        }
        let count = "SELECT count(*) FROM nodes WHERE cluster_id = $1";
        if found.is_none() && self.count(count, &[cluster.0.into()])? >= NODES_PER_CLUSTER_MAX {
            return Err(ControlError::TooManyNodes { max: NODES_PER_CLUSTER_MAX });
        }
        let peers = node.peers.map(|address| address.to_string());
        let backends = serde_json::to_string(&node.backends_mib).expect("a list of numbers");
        self.sql.execute(
            "INSERT INTO nodes
                 (cluster_id, name, key_digest, incarnation, peers, backends_mib, registered_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (cluster_id, name) DO UPDATE SET key_digest = excluded.key_digest,
                 incarnation = excluded.incarnation, peers = excluded.peers,
                 backends_mib = excluded.backends_mib, registered_at = excluded.registered_at",
            &[
                cluster.0.into(),
                node.name.as_str().into(),
                node.key_digest.as_slice().into(),
                node.incarnation.cast_signed().into(),
                peers.as_deref().into(),
                backends.as_str().into(),
                self.now.0.into(),
            ],
        )?;
        let at = peers.as_deref().unwrap_or("no address yet");
        let detail = format!("{} at {at}, incarnation {:016x}", node.name, node.incarnation);
        self.audit("node registered", Some(cluster), &detail)?;
        Ok(true)
    }

    /// Forgets a node that is a member of no topology that counts. Returns whether there was one.
    pub(crate) fn delete_node(
        &mut self,
        cluster: ClusterId,
        name: &NodeName,
    ) -> Result<bool, ControlError> {
        let Some((id, node)) = find_node(self.sql, cluster, name)? else { return Ok(false) };
        for state in [EpochState::Committed, EpochState::Prepared] {
            let epoch = find_epoch(self.sql, cluster, state)?;
            if epoch.is_some_and(|epoch| epoch.members.iter().any(|(member, _)| member == name)) {
                return Err(ControlError::NodeInUse(node.name));
            }
        }
        self.sql.execute("DELETE FROM nodes WHERE id = $1", &[id.into()])?;
        self.audit("node forgotten", Some(cluster), name.as_str())?;
        Ok(true)
    }

    /// Begins an epoch, which must be newer than any before it; one that is still being prepared is
    /// given up for it.
    pub(crate) fn prepare_epoch(
        &mut self,
        cluster: ClusterId,
        epoch: Epoch,
        topology: &[u8],
        digest: &[u8; 32],
        members: &[NodeName],
    ) -> Result<(), ControlError> {
        rows::find_cluster(self.sql, cluster)?;
        let newest = newest_epoch(self.sql, cluster)?;
        if epoch <= newest {
            return Err(ControlError::OldEpoch { epoch, newest });
        }
        if let Some(pending) = find_epoch(self.sql, cluster, EpochState::Prepared)? {
            self.abort_epoch(cluster, pending.epoch, &format!("given up for epoch {epoch}"))?;
        }
        self.sql.execute(
            "INSERT INTO epochs (cluster_id, epoch, state, topology, digest, prepared_at)
             VALUES ($1, $2, 'prepared', $3, $4, $5)",
            &[
                cluster.0.into(),
                epoch.get().into(),
                topology.into(),
                digest.as_slice().into(),
                self.now.0.into(),
            ],
        )?;
        for member in members {
            if find_node(self.sql, cluster, member)?.is_none() {
                return Err(ControlError::UnknownNode(member.clone()));
            }
            let insert = "INSERT INTO epoch_members (cluster_id, epoch, node_name)
                VALUES ($1, $2, $3)";
            let values = [cluster.0.into(), epoch.get().into(), member.as_str().into()];
            self.sql.execute(insert, &values)?;
        }
        let detail = format!("epoch {epoch} with {} nodes", members.len());
        self.audit("epoch prepared", Some(cluster), &detail)
    }

    /// Notes that a node has every link of the prepared topology open. Twice is as once.
    pub(crate) fn acknowledge_epoch(
        &mut self,
        cluster: ClusterId,
        epoch: Epoch,
        node: &NodeName,
    ) -> Result<(), ControlError> {
        let prepared = self.prepared(cluster, epoch)?;
        match prepared.members.iter().find(|(member, _)| member == node) {
            None => return Err(ControlError::UnknownNode(node.clone())),
            Some((_, true)) => return Ok(()),
            Some((_, false)) => (),
        }
        self.sql.execute(
            "UPDATE epoch_members SET acknowledged_at = $1
             WHERE cluster_id = $2 AND epoch = $3 AND node_name = $4",
            &[self.now.0.into(), cluster.0.into(), epoch.get().into(), node.as_str().into()],
        )?;
        self.audit("epoch acknowledged", Some(cluster), &format!("epoch {epoch} by {node}"))
    }

    /// Puts the prepared topology in force, if every member has acknowledged it.
    pub(crate) fn commit_epoch(
        &mut self,
        cluster: ClusterId,
        epoch: Epoch,
    ) -> Result<(), ControlError> {
        let prepared = self.prepared(cluster, epoch)?;
        let missing = prepared.members.iter().filter(|(_, acknowledged)| !acknowledged).count();
        if missing > 0 {
            return Err(ControlError::NotAcknowledged { epoch, missing });
        }
        if let Some(before) = find_epoch(self.sql, cluster, EpochState::Committed)? {
            self.decide_epoch(cluster, before.epoch, EpochState::Superseded)?;
        }
        self.decide_epoch(cluster, epoch, EpochState::Committed)?;
        self.audit("epoch committed", Some(cluster), &format!("epoch {epoch}"))
    }

    pub(crate) fn abort_epoch(
        &mut self,
        cluster: ClusterId,
        epoch: Epoch,
        why: &str,
    ) -> Result<(), ControlError> {
        self.prepared(cluster, epoch)?;
        self.decide_epoch(cluster, epoch, EpochState::Aborted)?;
        self.audit("epoch aborted", Some(cluster), &format!("epoch {epoch}: {why}"))
    }

    /// Marks the topology in force as the only one that anyone still serves by. Twice is as once.
    pub(crate) fn settle_epoch(
        &mut self,
        cluster: ClusterId,
        epoch: Epoch,
    ) -> Result<(), ControlError> {
        match find_epoch(self.sql, cluster, EpochState::Committed)? {
            Some(committed) if committed.epoch == epoch && committed.settled => Ok(()),
            Some(committed) if committed.epoch == epoch => {
                let update = "UPDATE epochs SET settled_at = $1
                    WHERE cluster_id = $2 AND epoch = $3";
                let values = [self.now.0.into(), cluster.0.into(), epoch.get().into()];
                self.sql.execute(update, &values)?;
                self.audit("epoch settled", Some(cluster), &format!("epoch {epoch}"))
            }
            Some(_) | None => Err(ControlError::NotCommitted(epoch)),
        }
    }

    fn prepared(&mut self, cluster: ClusterId, epoch: Epoch) -> Result<EpochRecord, ControlError> {
        find_epoch(self.sql, cluster, EpochState::Prepared)?
            .filter(|prepared| prepared.epoch == epoch)
            .ok_or(ControlError::NotPrepared(epoch))
    }

    fn decide_epoch(
        &mut self,
        cluster: ClusterId,
        epoch: Epoch,
        state: EpochState,
    ) -> Result<(), ControlError> {
        let update = "UPDATE epochs SET state = $1, decided_at = $2
            WHERE cluster_id = $3 AND epoch = $4";
        let values = [state.name().into(), self.now.0.into(), cluster.0.into(), epoch.get().into()];
        self.sql.execute(update, &values)?;
        Ok(())
    }
}
