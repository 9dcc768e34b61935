//! The policies that a replay knows by name.

use std::path::Path;

use muster_core::plan::{Backfill, Order, Policy};

/// Names and what they stand for, as `--help` shows them.
pub const NAMES: &[(&str, &str)] = &[
    ("default", "what the controller does unless its config says otherwise"),
    ("config", "what the muster.toml of --config says"),
    ("priority", "the weighted priority with EASY backfill"),
    ("fcfs", "first come, first served: nobody overtakes"),
    ("easy", "EASY: the first blocked job has a promised start"),
    ("easy-sjbf", "EASY, the shortest candidate first"),
    ("conservative", "every job has a promised start"),
    ("sjf", "shortest limit first, with EASY backfill"),
    ("f1", "F1 order, with EASY backfill"),
    ("wfp3", "WFP3 order, with EASY backfill"),
];

/// Changes to a named policy.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(id = "policy-change")]
pub struct Flags {
    /// How many waiting jobs have a promised start (default: the policy's own)
    #[arg(long, value_name = "K")]
    pub shadows: Option<u32>,
}

/// The policy of a name.
///
/// # Errors
/// In words: there is none of that name, or the config file is missing or has a fault.
pub fn policy(name: &str, flags: &Flags, config: Option<&Path>) -> Result<Policy, String> {
    let easy = |order| Policy { order, backfill: Backfill::InOrder, shadows: 1, ..Policy::easy() };
    let mut policy = match name {
        "default" => Policy::default(),
        "config" => {
            let path =
                config.ok_or("the policy \"config\" is that of a file: give --config FILE")?;
            let config = muster_config::Config::load(path).map_err(|why| why.to_string())?;
            muster_controller::pass::policy(&config.scheduler)
        }
        "priority" => easy(Order::Priority),
        "fcfs" => Policy::fcfs(),
        "easy" => Policy::easy(),
        "easy-sjbf" => Policy::easy_sjbf(),
        "conservative" => Policy::conservative(),
        "sjf" => easy(Order::Sjf),
        "f1" => easy(Order::F1),
        "wfp3" => easy(Order::Wfp3),
        unknown => {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            return Err(format!("no policy {unknown:?}: there are {}", names.join(", ")));
        }
    };
    if let Some(shadows) = flags.shadows {
        policy.shadows = shadows;
    }
    // A replay may take its time: no start and no job is left to a later pass.
    policy.max_starts = usize::MAX;
    policy.max_heads = usize::MAX;
    Ok(policy)
}
