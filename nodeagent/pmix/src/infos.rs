//! What the library is told of the step, by the names of the PMIx standard.

use std::ffi::{CString, c_void};

use muster_proto::shim::v1::PmixOrder;

use crate::abi::{
    BOOL, DATA_ARRAY, Data, DataArray, INFO, Info, PROC_RANK, STRING, UINT16, UINT32,
};
use crate::library::Library;

/// Infos, and what they point at.
#[derive(Default)]
pub(crate) struct Infos {
    pub(crate) list: Vec<Info>,
    texts: Vec<CString>,
    members: Vec<Vec<Info>>,
}

impl Infos {
    fn text(&mut self, key: &str, value: &str) {
        self.c_text(key, CString::new(value).unwrap_or_default());
    }

    fn c_text(&mut self, key: &str, value: CString) {
        // The bytes stay where they are when the list of owners grows.
        let string = value.as_ptr();
        self.texts.push(value);
        self.list.push(Info::new(key, STRING, Data { string }));
    }

    fn number(&mut self, key: &str, uint32: u32) {
        self.list.push(number(key, uint32));
    }

    fn array(&mut self, key: &str, members: Vec<Info>) {
        self.members.push(members);
        let members = self.members.last_mut().expect("just pushed");
        let array: *mut c_void = members.as_mut_ptr().cast();
        // The library reads it once, and this process registers one step: it stays.
        let array = Box::leak(Box::new(DataArray { kind: INFO, size: members.len(), array }));
        self.list.push(Info::new(key, DATA_ARRAY, Data { array }));
    }
}

fn number(key: &str, uint32: u32) -> Info {
    Info::new(key, UINT32, Data { uint32 })
}

fn small(key: &str, uint16: u16) -> Info {
    Info::new(key, UINT16, Data { uint16 })
}

fn rank(key: &str, uint32: u32) -> Info {
    Info::new(key, PROC_RANK, Data { uint32 })
}

fn flag(key: &str, flag: bool) -> Info {
    Info::new(key, BOOL, Data { flag })
}

fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

fn joined(ranks: &[u32]) -> String {
    ranks.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// For the start of the library.
pub(crate) fn of_host(order: &PmixOrder, directory: &str) -> Infos {
    let mut infos = Infos::default();
    infos.text("pmix.srvr.tmpdir", directory);
    infos.text("pmix.sys.tmpdir", directory);
    infos.text("pmix.srv.nspace", &format!("{}.host", order.namespace));
    infos.list.push(rank("pmix.srv.rank", order.index));
    if let Some(node) = order.nodes.get(order.index as usize) {
        infos.text("pmix.hname", &node.node);
    }
    infos
}

/// For the namespace of the step's tasks.
pub(crate) fn of_step(library: &Library, order: &PmixOrder, directory: &str) -> Infos {
    let mut infos = Infos::default();
    let total = count(order.nodes.iter().map(|node| node.tasks.len()).sum());
    let empty = muster_proto::v1::NodeRanks::default();
    let own = order.nodes.get(order.index as usize).unwrap_or(&empty);
    infos.text("pmix.jobid", &order.job);
    for key in ["pmix.univ.size", "pmix.job.size", "pmix.app.size", "pmix.max.size"] {
        infos.number(key, total);
    }
    infos.number("pmix.job.napps", 1);
    infos.number("pmix.num.nodes", count(order.nodes.len()));
    infos.number("pmix.local.size", count(own.tasks.len()));
    infos.number("pmix.node.size", count(own.tasks.len()));
    infos.number("pmix.nodeid", order.index);
    infos.text("pmix.hname", &own.node);
    infos.text("pmix.lpeers", &joined(&own.tasks));
    infos.list.push(rank("pmix.lldr", own.tasks.iter().copied().min().unwrap_or(0)));
    infos.list.push(rank("pmix.aldr", 0));
    infos.list.push(flag("pmix.spawned", false));
    infos.text("pmix.tmpdir", directory);
    infos.text("pmix.nsdir", directory);
    infos.list.push(flag("pmix.tdir.rmclean", true));
    let names: Vec<&str> = order.nodes.iter().map(|node| node.node.as_str()).collect();
    let names = names.join(",");
    let ranks: Vec<String> = order.nodes.iter().map(|node| joined(&node.tasks)).collect();
    let ranks = ranks.join(";");
    // Where the short form is no text, the long one is understood as well.
    let plain = |text: &str| CString::new(text).unwrap_or_default();
    infos.c_text("pmix.nmap", library.node_map(&names).unwrap_or_else(|| plain(&names)));
    infos.c_text("pmix.pmap", library.rank_map(&ranks).unwrap_or_else(|| plain(&ranks)));
    for (index, node) in (0u32..).zip(&order.nodes) {
        let name = CString::new(node.node.as_str()).unwrap_or_default();
        let string = name.as_ptr();
        infos.texts.push(name);
        for (local, task) in (0u16..).zip(&node.tasks) {
            let members = vec![
                rank("pmix.rank", *task),
                number("pmix.appnum", 0),
                rank("pmix.grank", *task),
                rank("pmix.apprank", *task),
                small("pmix.lrank", local),
                small("pmix.nrank", local),
                number("pmix.nodeid", index),
                Info::new("pmix.hname", STRING, Data { string }),
            ];
            infos.array("pmix.pdata", members);
        }
    }
    infos
}
