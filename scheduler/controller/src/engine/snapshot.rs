//! A whole state as bytes, and back.
//!
//! The engine copies the state's primary fields (`State::parts`: specs and requests are shared,
//! so a job costs some hundred bytes) and a thread of its own does the rest, so that commits wait
//! for the copy alone. The bytes are one `Snapshot` message written and read element by element:
//! nothing is held twice. Specs, the bulk of it, are read by several threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use bytes::{Buf, Bytes};
use muster_core::state::{Interned, Parts, State};
use muster_model::{JobSpec, LaunchSpec, Partition, Request, Reservation, Timestamp};
use muster_proto::store::v1 as rec;
use prost::Message;
use prost::encoding::{self, DecodeContext, WireType};

use super::codec::{BadRecord, Stored, job, spec};

/// Fewer specs than this are not worth a thread.
const SPECS_PER_THREAD: usize = 4096;
/// More threads than this gain nothing: the rest of the reading is not shared out.
const MAX_THREADS: usize = 8;

/// Places of shared values in a table, by where they live in memory.
struct Table<'a, T> {
    places: HashMap<*const T, u32>,
    items: Vec<&'a Arc<T>>,
}

impl<'a, T> Table<'a, T> {
    fn of(all: impl Iterator<Item = &'a Arc<T>>) -> Self {
        let mut table = Table { places: HashMap::new(), items: Vec::new() };
        for item in all {
            table.places.entry(Arc::as_ptr(item)).or_insert_with(|| {
                table.items.push(item);
                u32::try_from(table.items.len() - 1).expect("fewer specs than job ids")
            });
        }
        table
    }

    fn place(&self, item: &Arc<T>) -> u32 {
        self.places[&Arc::as_ptr(item)]
    }
}

/// The bytes of a state's primary fields.
#[must_use]
pub fn encode(parts: &Parts) -> Bytes {
    let specs =
        Table::of(parts.jobs.iter().map(|j| &j.spec).chain(parts.arrays.iter().map(|a| &a.spec)));
    let requests = Table::of(specs.items.iter().map(|spec| &spec.request));
    let launches = Table::of(specs.items.iter().map(|spec| &spec.launch));
    let mut out = Vec::with_capacity(4096 + 256 * specs.items.len());
    encoding::int64::encode(1, &parts.clock.0, &mut out);
    encoding::uint32::encode(2, &parts.next_id, &mut out);
    encoding::message::encode(3, &parts.config.store(), &mut out);
    for node in &parts.nodes {
        encoding::message::encode(4, &node.store(), &mut out);
    }
    for partition in &parts.partitions {
        encoding::message::encode(5, &partition.store(), &mut out);
    }
    for request in &requests.items {
        encoding::message::encode(6, &request.store(), &mut out);
    }
    for item in &specs.items {
        let mut record = spec::store_spec(item);
        record.request_ref = requests.place(&item.request);
        record.launch_ref = launches.place(&item.launch) + 1;
        encoding::message::encode(7, &record, &mut out);
    }
    for item in &parts.jobs {
        encoding::message::encode(8, &job::store_job(item, specs.place(&item.spec)), &mut out);
    }
    for item in &parts.arrays {
        encoding::message::encode(9, &job::store_array(item, specs.place(&item.spec)), &mut out);
    }
    for reservation in &parts.reservations {
        encoding::message::encode(10, &reservation.store(), &mut out);
    }
    encoding::message::encode(11, &parts.habits.store(), &mut out);
    for launch in &launches.items {
        encoding::message::encode(12, &launch.store(), &mut out);
    }
    out.into()
}

/// The state of a snapshot, indices and all.
///
/// # Errors
/// The bytes are damaged or of a newer version.
pub fn decode(bytes: Bytes) -> Result<State, BadRecord> {
    let raw = Raw::split(bytes)?;
    let requests = raw.requests.into_iter().map(load_one::<Request>);
    let requests: Vec<Arc<Request>> =
        requests.map(|r| r.map(Arc::new)).collect::<Result<_, _>>()?;
    let launches = raw.launches.into_iter().map(load_one::<LaunchSpec>);
    let launches: Vec<Arc<LaunchSpec>> =
        launches.map(|l| l.map(Arc::new)).collect::<Result<_, _>>()?;
    let specs = load_specs(&raw.specs, &requests, &launches)?;
    let load_job = |bytes: Bytes| job::load_job(rec::Job::decode(bytes)?, &specs);
    let load_array = |bytes: Bytes| job::load_array(rec::Array::decode(bytes)?, &specs);
    Ok(State::from_parts(Parts {
        clock: raw.clock,
        config: Arc::new(load_one(raw.config.ok_or(BadRecord::Missing("config"))?)?),
        nodes: raw.nodes.into_iter().map(load_one).collect::<Result<_, _>>()?,
        partitions: raw
            .partitions
            .into_iter()
            .map(load_one::<Partition>)
            .collect::<Result<_, _>>()?,
        reservations: raw
            .reservations
            .into_iter()
            .map(load_one::<Reservation>)
            .collect::<Result<_, _>>()?,
        jobs: raw.jobs.into_iter().map(load_job).collect::<Result<_, BadRecord>>()?,
        arrays: raw.arrays.into_iter().map(load_array).collect::<Result<_, BadRecord>>()?,
        next_id: raw.next_id,
        // Snapshots of before there were habits have none.
        habits: raw.habits.map(load_one).transpose()?.unwrap_or_default(),
    }))
}

fn load_one<T: Stored<Record: Message + Default>>(bytes: Bytes) -> Result<T, BadRecord> {
    T::load(T::Record::decode(bytes)?)
}

fn load_specs(
    raw: &[Bytes],
    requests: &[Arc<Request>],
    launches: &[Arc<LaunchSpec>],
) -> Result<Vec<Arc<JobSpec>>, BadRecord> {
    let one = |bytes: &Bytes| -> Result<Arc<JobSpec>, BadRecord> {
        let mut record = rec::JobSpec::decode(bytes.clone())?;
        let at = record.request_ref;
        let bad = BadRecord::Value { field: "request_ref", value: at.into() };
        let request = requests.get(at as usize).cloned().ok_or(bad)?;
        let launch = match (spec::take_launch(&mut record), record.launch_ref) {
            // Snapshots of before there was a table have it inside.
            (Some(own), _) => Arc::new(LaunchSpec::load(own)?),
            (None, 0) => return Err(BadRecord::Missing("launch")),
            (None, at) => {
                let bad = BadRecord::Value { field: "launch_ref", value: at.into() };
                launches.get(at as usize - 1).cloned().ok_or(bad)?
            }
        };
        spec::load_spec(record, request, launch).map(Arc::new)
    };
    let threads = thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS));
    let each = raw.len().div_ceil(threads).max(SPECS_PER_THREAD);
    thread::scope(|scope| {
        let shares: Vec<_> = raw
            .chunks(each)
            .map(|share| scope.spawn(move || share.iter().map(one).collect::<Result<Vec<_>, _>>()))
            .collect();
        let mut specs = Vec::with_capacity(raw.len());
        for share in shares {
            specs.extend(share.join().expect("reading a spec does not panic")?);
        }
        share(&mut specs);
        Ok(specs)
    })
}

/// Has equal parts of specs once, while each spec is nobody else's and need not be copied for it.
fn share(specs: &mut [Arc<JobSpec>]) {
    let mut shared = Interned::default();
    specs.iter_mut().for_each(|spec| shared.keep(spec));
}

/// A snapshot message split into its elements, each still as bytes.
#[derive(Default)]
struct Raw {
    clock: Timestamp,
    next_id: u32,
    config: Option<Bytes>,
    nodes: Vec<Bytes>,
    partitions: Vec<Bytes>,
    requests: Vec<Bytes>,
    specs: Vec<Bytes>,
    jobs: Vec<Bytes>,
    arrays: Vec<Bytes>,
    reservations: Vec<Bytes>,
    habits: Option<Bytes>,
    launches: Vec<Bytes>,
}

impl Raw {
    fn split(mut bytes: Bytes) -> Result<Raw, BadRecord> {
        let mut raw = Raw::default();
        while bytes.has_remaining() {
            let (tag, wire) = encoding::decode_key(&mut bytes)?;
            let context = DecodeContext::default();
            match tag {
                1 => encoding::int64::merge(wire, &mut raw.clock.0, &mut bytes, context)?,
                2 => encoding::uint32::merge(wire, &mut raw.next_id, &mut bytes, context)?,
                _ => {
                    encoding::check_wire_type(WireType::LengthDelimited, wire)?;
                    let length = encoding::decode_varint(&mut bytes)?;
                    let length = usize::try_from(length).unwrap_or(usize::MAX);
                    if length > bytes.len() {
                        return Err(BadRecord::Missing("end"));
                    }
                    let element = bytes.split_to(length);
                    match tag {
                        3 => raw.config = Some(element),
                        4 => raw.nodes.push(element),
                        5 => raw.partitions.push(element),
                        6 => raw.requests.push(element),
                        7 => raw.specs.push(element),
                        8 => raw.jobs.push(element),
                        9 => raw.arrays.push(element),
                        10 => raw.reservations.push(element),
                        11 => raw.habits = Some(element),
                        12 => raw.launches.push(element),
                        _ => return Err(BadRecord::UnknownKind),
                    }
                }
            }
        }
        Ok(raw)
    }
}
