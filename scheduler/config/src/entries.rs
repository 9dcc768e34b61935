//! The values in force as `scontrol show config` prints them: tools grep for these names.

use crate::resolved::{CgroupMode, Config};

impl Config {
    /// (name, value) in the order shown: by name.
    #[must_use]
    pub fn to_entries(&self) -> Vec<(String, String)> {
        let s = &self.scheduler;
        let seconds = |n: u32| format!("{n} sec");
        let yes = |on: bool| if on { "YES" } else { "NO" }.to_owned();
        let file = |path: &Option<std::path::PathBuf>| {
            path.as_ref().map_or_else(|| "(null)".to_owned(), |p| p.display().to_string())
        };
        let storage = if self.history.url.starts_with("sqlite") { "sqlite" } else { "postgresql" };
        let confine = match self.agent.cgroup {
            CgroupMode::None => "proctrack/shim",
            _ => "proctrack/cgroup",
        };
        let host = match &self.controller.address {
            Some(address) => address.clone(),
            None => self.controller.socket.display().to_string(),
        };
        let max_age = muster_model::time::Clock(i64::from(self.priority.max_age_seconds));
        let gres: std::collections::BTreeSet<&str> =
            self.nodes.iter().flat_map(|n| n.capacity.gres.keys()).map(|k| &*k.name).collect();
        let gres = gres.into_iter().collect::<Vec<_>>().join(",");
        let choices = format!(
            "order={},backfill={},shadows={},packing={}",
            s.order.word(),
            s.backfill.word(),
            s.shadows.word(),
            s.packing.word()
        );
        let mut entries: Vec<(&str, String)> = vec![
            ("AccountingStorageType", format!("accounting_storage/{storage}")),
            ("AuthType", "auth/muster".into()),
            ("ClusterName", self.cluster.clone()),
            ("EnforcePartLimits", yes(s.enforce_partition_limits)),
            ("Epilog", file(&self.agent.epilog)),
            ("FirstJobId", s.first_job_id.to_string()),
            ("GresTypes", if gres.is_empty() { "(null)".into() } else { gres }),
            ("JobRequeue", u8::from(s.requeue).to_string()),
            ("KillWait", seconds(s.kill_wait_seconds)),
            ("Licenses", self.shown_licenses()),
            ("MaxArraySize", s.max_array_size.to_string()),
            ("MaxJobCount", s.max_jobs.to_string()),
            ("MinJobAge", seconds(s.min_job_age_seconds)),
            ("MpiDefault", s.mpi_default.word().into()),
            ("PreemptMode", "OFF".into()),
            ("PriorityMaxAge", max_age.to_string()),
            ("PriorityType", "priority/multifactor".into()),
            ("PriorityWeightAge", self.priority.age.to_string()),
            ("PriorityWeightJobSize", self.priority.size.to_string()),
            ("PriorityWeightPartition", self.priority.partition.to_string()),
            ("ProctrackType", confine.into()),
            ("Prolog", file(&self.agent.prolog)),
            ("SchedulerParameters", choices),
            ("SchedulerType", "sched/backfill".into()),
            ("SelectType", "select/cons_tres".into()),
            ("SelectTypeParameters", "CR_CPU_MEMORY".into()),
            ("SlurmctldHost[0]", host),
            ("SlurmdSpoolDir", self.agent.spool_dir.display().to_string()),
            ("SlurmdTimeout", seconds(s.node_timeout_seconds)),
            ("SLURM_CONF", self.path.display().to_string()),
            ("StateSaveLocation", self.state_dir.display().to_string()),
            ("TaskPlugin", confine.replace("proctrack", "task")),
            ("UnkillableStepTimeout", seconds(s.unkillable_seconds)),
        ];
        entries.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn shown_licenses(&self) -> String {
        if self.licenses.is_empty() {
            return "(null)".into();
        }
        let show = |(name, count): &(Box<str>, u32)| format!("{name}:{count}");
        self.licenses.iter().map(show).collect::<Vec<_>>().join(",")
    }
}
