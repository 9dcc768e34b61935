//! PMI-1 and PMI-2 for the tasks of this node: each has a socket pair of its own, and says in its
//! first line which of the two it speaks. What tasks put is seen by all after the next fence, for
//! which the nodes exchange what is new.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;

use muster_proto::shim::v1::{KeyValue, KeyValues};
use muster_proto::v1::{Aborted, Gather, Gathered};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::PollFlags;
use prost::Message as _;

use super::mapping;
use super::wire::{self, Speech, Words};
use super::{Layout, News};

/// Bounds that clients are told, in bytes.
const KEY: usize = 256;
const VALUE: usize = 4096;
const NAME: usize = 256;
/// What the tasks of a node may put into the space altogether, in bytes.
const ROOM: usize = 16 << 20;
/// Answers that a task does not read: beyond this it is not heard either, in bytes.
const UNREAD: usize = 256 * 1024;
/// The only group of nodes: all.
const GROUP: &[u8] = b"pmi";
/// Under this name PMI tells where ranks are.
const MAPPING: &str = "PMI_process_mapping";

/// A task's side of the talk.
#[derive(Debug)]
struct Seat {
    rank: u32,
    /// `None`: it has closed, or said what is no message.
    stream: Option<UnixStream>,
    speech: Speech,
    heard: Vec<u8>,
    answers: Vec<u8>,
    /// In a fence, with its mark for the answer.
    waits: Option<Option<String>>,
    /// Waits for this attribute of the node, with its mark for the answer.
    asks: Option<(String, Option<String>)>,
}

/// The space of one step, as far as this node knows it.
#[derive(Debug)]
pub(super) struct Pmi {
    name: String,
    layout: Layout,
    mapping: Option<String>,
    seats: Vec<Seat>,
    /// The tasks' ends, until they are forked.
    theirs: Vec<UnixStream>,
    space: BTreeMap<String, String>,
    /// Put here since the last fence.
    fresh: Vec<KeyValue>,
    put: usize,
    attributes: BTreeMap<String, String>,
    round: u64,
    /// Our piece of this round is on its way.
    told: bool,
    news: Vec<News>,
}

impl Pmi {
    pub(super) fn new(name: String, layout: Layout) -> io::Result<Self> {
        let (mut seats, mut theirs) = (Vec::new(), Vec::new());
        for rank in layout.own().to_vec() {
            let (ours, its) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            theirs.push(its);
            seats.push(Seat {
                rank,
                stream: Some(ours),
                speech: Speech::default(),
                heard: Vec::new(),
                answers: Vec::new(),
                waits: None,
                asks: None,
            });
        }
        Ok(Self {
            name,
            mapping: mapping::text(&layout.nodes),
            layout,
            seats,
            theirs,
            space: BTreeMap::new(),
            fresh: Vec::new(),
            put: 0,
            attributes: BTreeMap::new(),
            round: 0,
            told: false,
            news: Vec::new(),
        })
    }

    pub(super) fn environment(&self, local: usize) -> Vec<(String, String)> {
        use std::os::fd::AsRawFd as _;
        let number = self.theirs.get(local).map_or(-1, |fd| fd.as_raw_fd());
        let rank = self.seats.get(local).map_or(0, |seat| seat.rank);
        [
            ("PMI_FD", number.to_string()),
            ("PMI_RANK", rank.to_string()),
            ("PMI_SIZE", self.layout.size().to_string()),
            ("PMI_JOBID", self.name.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// In the task, before it executes its program: its end stays open.
    pub(super) fn keep(&self, local: usize) -> io::Result<()> {
        if let Some(fd) = self.theirs.get(local) {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    }

    pub(super) fn launched(&mut self) {
        self.theirs.clear();
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>, PollFlags)> {
        self.seats.iter().enumerate().filter_map(|(at, seat)| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, seat.answers.len() < UNREAD);
            flags.set(PollFlags::POLLOUT, !seat.answers.is_empty());
            Some((at, seat.stream.as_ref()?.as_fd(), flags))
        })
    }

    pub(super) fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Takes in what a task has said, and answers.
    pub(super) fn hear(&mut self, local: usize) {
        let Some(seat) = self.seats.get_mut(local) else { return };
        let mut open = seat.read();
        loop {
            let seat = &mut self.seats[local];
            match wire::next(seat.speech, &seat.heard) {
                Ok(None) => break,
                Ok(Some((words, length))) => {
                    seat.heard.drain(..length);
                    self.obey(local, &words);
                }
                Err(wire::Garbled) => {
                    open = false;
                    break;
                }
            }
        }
        let seat = &mut self.seats[local];
        seat.write();
        if !open {
            seat.stream = None;
        }
        self.fence();
    }

    fn obey(&mut self, local: usize, words: &Words) {
        let mark = words.get("thrid").map(str::to_owned);
        match self.seats[local].speech {
            Speech::Lines => self.obey_line(local, words),
            Speech::Frames => self.obey_frame(local, words, mark),
        }
    }

    fn say(&mut self, local: usize, words: &[(&str, &str)]) {
        let seat = &mut self.seats[local];
        let text = wire::answer(seat.speech, words);
        seat.answers.extend_from_slice(&text);
    }

    /// A response of PMI-2: named after its request, with its mark.
    fn respond(&mut self, local: usize, name: &str, mark: Option<&str>, more: &[(&str, &str)]) {
        let name = format!("{name}-response");
        let mut words = vec![("cmd", name.as_str())];
        words.extend(mark.map(|mark| ("thrid", mark)));
        words.extend_from_slice(more);
        self.say(local, &words);
    }

    fn obey_line(&mut self, local: usize, words: &Words) {
        let size = self.layout.size().to_string();
        match words.command() {
            "init" if words.get("pmi_version") == Some("2") => {
                let versions = [("pmi_version", "2"), ("pmi_subversion", "0"), ("rc", "0")];
                self.say(local, &[&[("cmd", "response_to_init")], &versions[..]].concat());
                self.seats[local].speech = Speech::Frames;
            }
            "init" => {
                let versions = [("pmi_version", "1"), ("pmi_subversion", "1"), ("rc", "0")];
                self.say(local, &[&[("cmd", "response_to_init")], &versions[..]].concat());
                self.news.push(News::Joined(local));
            }
            "get_maxes" => {
                let (name, key, value) = (NAME.to_string(), KEY.to_string(), VALUE.to_string());
                let bounds =
                    [("kvsname_max", &*name), ("keylen_max", &*key), ("vallen_max", &*value)];
                self.say(local, &[&[("cmd", "maxes"), ("rc", "0")], &bounds[..]].concat());
            }
            "get_appnum" => self.say(local, &[("cmd", "appnum"), ("rc", "0"), ("appnum", "0")]),
            "get_my_kvsname" => {
                let name = self.name.clone();
                self.say(local, &[("cmd", "my_kvsname"), ("rc", "0"), ("kvsname", &name)]);
            }
            "get_universe_size" => {
                self.say(local, &[("cmd", "universe_size"), ("rc", "0"), ("size", &size)]);
            }
            "put" => match self.put(words) {
                Ok(()) => {
                    self.say(local, &[("cmd", "put_result"), ("rc", "0"), ("msg", "success")])
                }
                Err(why) => self.say(local, &[("cmd", "put_result"), ("rc", "-1"), ("msg", why)]),
            },
            "get" => match self.find(words.get("key").unwrap_or_default()) {
                Some(value) => {
                    let found = [("rc", "0"), ("msg", "success"), ("value", &value)];
                    self.say(local, &[&[("cmd", "get_result")], &found[..]].concat());
                }
                None => {
                    let missing = [("rc", "-1"), ("msg", "key_not_found"), ("value", "unknown")];
                    self.say(local, &[&[("cmd", "get_result")], &missing[..]].concat());
                }
            },
            "barrier_in" => self.seats[local].waits = Some(None),
            "finalize" => {
                self.say(local, &[("cmd", "finalize_ack"), ("rc", "0")]);
                self.news.push(News::Left(local));
            }
            "abort" => self.abort(local, words),
            "spawn" => {
                let no = [("rc", "-1"), ("errmsg", "not_supported"), ("msg", "not_supported")];
                self.say(local, &[&[("cmd", "spawn_result")], &no[..]].concat());
            }
            other => {
                let name = format!("{}_result", other.trim_end_matches("_name"));
                self.say(local, &[("cmd", &*name), ("rc", "-1"), ("msg", "not_supported")]);
            }
        }
    }

    fn obey_frame(&mut self, local: usize, words: &Words, mark: Option<String>) {
        let mark_text = mark.clone();
        let mark_text = mark_text.as_deref();
        let name = words.command().to_owned();
        let key = words.get("key").unwrap_or_default().to_owned();
        match name.as_str() {
            "fullinit" => {
                let (rank, size) =
                    (self.seats[local].rank.to_string(), self.layout.size().to_string());
                let more = [
                    ("rc", "0"),
                    ("pmi-version", "2"),
                    ("pmi-subversion", "0"),
                    ("rank", &rank),
                    ("size", &size),
                    ("appnum", "0"),
                    ("debugged", "FALSE"),
                    ("pmiverbose", "FALSE"),
                ];
                self.respond(local, &name, mark_text, &more);
                self.news.push(News::Joined(local));
            }
            "job-getid" => {
                let job = self.name.clone();
                self.respond(local, &name, mark_text, &[("rc", "0"), ("jobid", &job)]);
            }
            "info-getjobattr" => {
                let value = match key.as_str() {
                    MAPPING => self.mapping.clone(),
                    "universeSize" => Some(self.layout.size().to_string()),
                    _ => None,
                };
                self.found(local, &name, mark_text, value.as_deref());
            }
            "info-putnodeattr" => {
                let value = words.get("value").unwrap_or_default().to_owned();
                if self.has_room(key.len() + value.len()) {
                    self.attributes.insert(key, value);
                    self.respond(local, &name, mark_text, &[("rc", "0")]);
                    self.tell_attributes();
                } else {
                    self.respond(local, &name, mark_text, &[("rc", "-1"), ("errmsg", "no room")]);
                }
            }
            "info-getnodeattr" => match self.attributes.get(&key).cloned() {
                None if words.get("wait") == Some("TRUE") => {
                    self.seats[local].asks = Some((key, mark));
                }
                value => self.found(local, &name, mark_text, value.as_deref()),
            },
            "kvs-put" => {
                let done = match self.put(words) {
                    Ok(()) => vec![("rc", "0")],
                    Err(why) => vec![("rc", "-1"), ("errmsg", why)],
                };
                self.respond(local, &name, mark_text, &done);
            }
            "kvs-get" => {
                let value = self.find(&key);
                self.found(local, &name, mark_text, value.as_deref());
            }
            "kvs-fence" => self.seats[local].waits = Some(mark),
            "finalize" => {
                self.respond(local, &name, mark_text, &[("rc", "0")]);
                self.news.push(News::Left(local));
            }
            "abort" => self.abort(local, words),
            _ => {
                let no = [("rc", "-1"), ("errmsg", "not supported")];
                self.respond(local, &name, mark_text, &no);
            }
        }
    }

    fn found(&mut self, local: usize, name: &str, mark: Option<&str>, value: Option<&str>) {
        match value {
            Some(value) => {
                let more = [("rc", "0"), ("found", "TRUE"), ("value", value)];
                self.respond(local, name, mark, &more);
            }
            None => self.respond(local, name, mark, &[("rc", "0"), ("found", "FALSE")]),
        }
    }

    /// Those who wait for an attribute that is there by now.
    fn tell_attributes(&mut self) {
        for local in 0..self.seats.len() {
            let Some((key, mark)) = self.seats[local].asks.clone() else { continue };
            if let Some(value) = self.attributes.get(&key).cloned() {
                self.seats[local].asks = None;
                self.found(local, "info-getnodeattr", mark.as_deref(), Some(&value));
                self.seats[local].write();
            }
        }
    }

    fn has_room(&mut self, more: usize) -> bool {
        let fits = self.put + more <= ROOM;
        self.put += if fits { more } else { 0 };
        fits
    }

    fn put(&mut self, words: &Words) -> Result<(), &'static str> {
        let key = words.get("key").unwrap_or_default().to_owned();
        let value = words.get("value").unwrap_or_default().to_owned();
        if key.is_empty() || key.len() > KEY {
            return Err("invalid_key_length");
        }
        if value.len() > VALUE {
            return Err("invalid_value_length");
        }
        if !self.has_room(key.len() + value.len()) {
            return Err("no_room");
        }
        let pair = (key.clone().into_bytes().into(), value.clone().into_bytes().into());
        self.fresh.push(KeyValue { key: pair.0, value: pair.1 });
        self.space.insert(key, value);
        Ok(())
    }

    fn find(&self, key: &str) -> Option<String> {
        match key {
            MAPPING => self.mapping.clone(),
            key => self.space.get(key).cloned(),
        }
    }

    fn abort(&mut self, local: usize, words: &Words) {
        let code = words.get("exitcode").and_then(|code| code.parse::<i32>().ok());
        let said = words.get("msg").or_else(|| words.get("message")).unwrap_or_default().trim();
        let text = match said {
            "" => "has aborted the step".to_owned(),
            said => format!("has aborted the step: {said}"),
        };
        let code = code.map(|code| code.rem_euclid(256).cast_unsigned());
        let task = self.seats[local].rank;
        self.news.push(News::Aborted(Aborted { task, code, text }));
    }

    /// Everybody here is in the fence: the other nodes are told what is new.
    fn fence(&mut self) {
        if self.told || self.seats.iter().any(|seat| seat.waits.is_none()) {
            return;
        }
        self.told = true;
        let piece = KeyValues { pairs: std::mem::take(&mut self.fresh) };
        if self.layout.nodes.len() < 2 {
            self.pass(0);
            return;
        }
        self.news.push(News::Gather(Gather {
            group: GROUP.into(),
            round: self.round,
            nodes: (0..).take(self.layout.nodes.len()).collect(),
            piece: piece.encode_to_vec().into(),
        }));
    }

    /// What all nodes have put.
    pub(super) fn gathered(&mut self, gathered: &Gathered) {
        if gathered.group != GROUP || gathered.round != self.round || !self.told {
            return;
        }
        for piece in &gathered.pieces {
            let Ok(piece) = KeyValues::decode(piece.clone()) else { continue };
            for pair in piece.pairs {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                self.space.insert(text(&pair.key), text(&pair.value));
            }
        }
        self.pass(if gathered.fault.is_empty() { 0 } else { -1 });
    }

    /// Lets everybody out of the fence.
    fn pass(&mut self, code: i32) {
        self.round += 1;
        self.told = false;
        let code = code.to_string();
        for local in 0..self.seats.len() {
            let Some(mark) = self.seats[local].waits.take() else { continue };
            match self.seats[local].speech {
                Speech::Lines => self.say(local, &[("cmd", "barrier_out"), ("rc", &code)]),
                Speech::Frames => {
                    self.respond(local, "kvs-fence", mark.as_deref(), &[("rc", &code)])
                }
            }
            self.seats[local].write();
        }
    }

    /// Whether somebody waits in a fence.
    pub(super) fn waits(&self) -> bool {
        self.seats.iter().any(|seat| seat.waits.is_some())
    }
}

impl Seat {
    /// False: nothing more will come.
    fn read(&mut self) -> bool {
        let mut chunk = [0u8; 16 * 1024];
        loop {
            let Some(stream) = &mut self.stream else { return false };
            match stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(length) => self.heard.extend_from_slice(&chunk[..length]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
            // The rest waits in the kernel.
            if self.heard.len() > wire::LONGEST {
                return true;
            }
        }
    }

    fn write(&mut self) {
        while let Some(stream) = self.stream.as_mut().filter(|_| !self.answers.is_empty()) {
            match stream.write(&self.answers) {
                Ok(length) => drop(self.answers.drain(..length)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.stream = None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
