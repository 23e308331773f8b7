//! Changes of a cluster's members: shown, confirmed, then followed until every node has them.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Args;
use control::contract::MemberView;
use control::contract::{ChangeMembers, ClusterStatusView, DiagnosisView, MembersPlanView};

use super::cache::{CommandError, Confirmation};
use super::cluster::{status, told};
use super::output::{print, table, to_json};
use crate::client::Client;

/// How a change is carried out.
#[derive(Debug, Args)]
pub(super) struct CarryingOut {
    /// Only show what would move
    #[arg(long)]
    dry_run: bool,

    /// Do not wait until every node has it
    #[arg(long)]
    no_wait: bool,

    /// How long to wait for that
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,

    #[command(flatten)]
    confirmation: Confirmation,
}

/// How often to look whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Says what the change means, asks, has it done, and waits until it is settled.
pub(super) fn carry_out(
    client: &Client,
    change: ChangeMembers,
    what: &str,
    how: &CarryingOut,
    json: bool,
) -> Result<(), CommandError> {
    let ask = |change: &ChangeMembers| client.post("/v1/cluster/members", change);
    let plan: MembersPlanView = ask(&ChangeMembers { preview: true, ..change.clone() })?;
    if how.dry_run {
        return Ok(print(&if json { to_json(&plan) } else { shown(&plan) })?);
    }
    let percent = plan.share_moved * 100.0;
    how.confirmation.get(&format!("{what}; {percent:.1} % of all slots move, and begin empty"))?;
    let plan: MembersPlanView = ask(&change)?;
    if !how.no_wait {
        wait(client, &change, &plan, Duration::from_secs(how.timeout))?;
    }
    let state = if how.no_wait { "Begun" } else { "Done" };
    Ok(print(&if json { to_json(&plan) } else { format!("{state}.\n{}", shown(&plan)) })?)
}

fn wait(
    client: &Client,
    change: &ChangeMembers,
    plan: &MembersPlanView,
    time_max: Duration,
) -> Result<(), CommandError> {
    let began = Instant::now();
    let mut said = String::new();
    loop {
        let status = status(client)?;
        if is_done(&status, change, plan) {
            return Ok(());
        }
        let progress = progress(&status);
        if progress != said && io::stderr().is_terminal() {
            writeln!(io::stderr(), "{progress}")?;
            said = progress;
        }
        if time_max <= began.elapsed() {
            let diagnosis: DiagnosisView = client.get("/v1/cluster/diagnosis")?;
            write!(io::stderr(), "{}", told(&diagnosis))?;
            return Err(CommandError::NotSettled { seconds: time_max.as_secs() });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn is_done(status: &ClusterStatusView, change: &ChangeMembers, plan: &MembersPlanView) -> bool {
    let weights = |members: &[MemberView]| -> Vec<(String, u32)> {
        members.iter().map(|it| (it.name.clone(), it.weight)).collect()
    };
    status.settled_epoch == status.epoch
        && weights(&status.members) == weights(&plan.members)
        && (!change.refresh_links || plan.epoch < status.epoch)
        && !status.nodes.iter().any(|node| change.remove.contains(&node.name))
}

fn progress(status: &ClusterStatusView) -> String {
    let following = status.nodes.iter().filter(|node| node.epoch == status.epoch).count();
    match status.preparing_epoch {
        Some(epoch) => format!("epoch {epoch}: nodes make their links"),
        None => format!(
            "epoch {}: {following} of {} nodes route by it{}",
            status.epoch,
            status.nodes.len(),
            if status.settled_epoch == status.epoch { ", settled" } else { "" }
        ),
    }
}

fn shown(plan: &MembersPlanView) -> String {
    let rows: Vec<_> = plan
        .members
        .iter()
        .map(|it| {
            let share = format!("{:.2} %", it.share * 100.0);
            [it.name.clone(), it.weight.to_string(), share, it.address.clone()]
        })
        .collect();
    let (moved, least) = (plan.share_moved * 100.0, plan.share_moved_min * 100.0);
    let members = table(["MEMBER", "WEIGHT", "SHARE", "ADDRESS"], &rows);
    format!("{moved:.2} % of all slots move (at least {least:.2} %)\n\n{members}")
}
