//! GPUs: what was found, how they hang together, what is wrong with them.

use muster_model::node::GpuMark;
use muster_model::{Fabric, Gpu, GpuLinks, GpuUsage, MigInstance};
use muster_proto::store::v1 as rec;

use super::{BadRecord, Stored, maybe, narrow, need};

impl Stored for Gpu {
    type Record = rec::Gpu;

    fn store(&self) -> Self::Record {
        rec::Gpu {
            uuid: self.uuid.to_string(),
            of: self.of.to_string(),
            memory_mib: self.memory_mib,
            minor: self.minor,
            pci: self.pci.to_string(),
            numa: self.numa,
            cpus: Some(self.cpus.store()),
            mig: self.mig.as_ref().map(Stored::store),
            fabric: self.fabric.as_ref().map(Stored::store),
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(Gpu {
            uuid: r.uuid.into(),
            of: r.of.into(),
            memory_mib: r.memory_mib,
            minor: r.minor,
            pci: r.pci.into(),
            numa: r.numa,
            cpus: need(r.cpus, "CPUs")?,
            mig: maybe(r.mig)?,
            fabric: maybe(r.fabric)?,
        })
    }
}

impl Stored for MigInstance {
    type Record = rec::MigInstance;

    fn store(&self) -> Self::Record {
        rec::MigInstance {
            parent: self.parent.to_string(),
            gpu_instance: self.gpu_instance,
            compute_instance: self.compute_instance,
            cap_minors: self.cap_minors.clone(),
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(MigInstance {
            parent: r.parent.into(),
            gpu_instance: r.gpu_instance,
            compute_instance: r.compute_instance,
            cap_minors: r.cap_minors,
        })
    }
}

impl Stored for Fabric {
    type Record = rec::Fabric;

    fn store(&self) -> Self::Record {
        rec::Fabric { cluster: self.cluster.to_string(), clique: self.clique }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(Fabric { cluster: r.cluster.into(), clique: r.clique })
    }
}

impl Stored for GpuLinks {
    type Record = rec::GpuLinks;

    fn store(&self) -> Self::Record {
        rec::GpuLinks {
            count: self.count.into(),
            class: self.class.clone().into(),
            numa: self.numa.clone().into(),
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        let count = narrow(r.count, "number of linked GPUs")?;
        let links = GpuLinks::from_parts(count, r.class.into(), r.numa.into());
        links.ok_or(BadRecord::Value { field: "link matrix, size", value: r.count.into() })
    }
}

impl Stored for GpuMark {
    type Record = rec::GpuMark;

    fn store(&self) -> Self::Record {
        rec::GpuMark { mark: Some(self.mark.store()), lifts: self.lifts }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(GpuMark { mark: need(r.mark, "mark")?, lifts: r.lifts })
    }
}

impl Stored for GpuUsage {
    type Record = rec::GpuUsage;

    fn store(&self) -> Self::Record {
        rec::GpuUsage {
            busy_ms: self.busy_ms,
            seen_ms: self.seen_ms,
            memory_mib: self.memory_mib,
            energy_mj: self.energy_mj,
        }
    }

    fn load(r: Self::Record) -> Result<Self, BadRecord> {
        Ok(GpuUsage {
            busy_ms: r.busy_ms,
            seen_ms: r.seen_ms,
            memory_mib: r.memory_mib,
            energy_mj: r.energy_mj,
        })
    }
}
