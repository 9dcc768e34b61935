//! The v2 device filter: a BPF program of type CGROUP_DEVICE, written instruction by instruction,
//! because a rule list needs no compiler. The kernel asks it for every open and mknod of a device.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use crate::Error;
use crate::devices::{DeviceKind, DeviceRule, DeviceRules};

// include/uapi/linux/bpf.h
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of ancestors keep their say.
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const DEV_BLOCK: i32 = 1;
const DEV_CHAR: i32 = 2;
const ACC_MKNOD: i32 = 1;
const ACC_READ: i32 = 2;
const ACC_WRITE: i32 = 4;

/// Registers: the context comes in R1, the verdict goes out in R0.
const R0: u8 = 0;
const R1: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// One instruction as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

fn op(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate }
}

const LOAD_WORD: u8 = 0x61;
const AND_IMMEDIATE: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xbc;
const MOVE_IMMEDIATE: u8 = 0xb7;
/// 32-bit compare and jump when not equal: a major above i32 cannot occur.
const JUMP_UNEQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

/// The program for `rules`: every rule is a run of tests that falls through to "allowed" or jumps
/// to the next rule; the end is "denied".
fn assemble(rules: &DeviceRules) -> Vec<Instruction> {
    let mut program = vec![
        // struct bpf_cgroup_dev_ctx { u32 access_type /* access << 16 | type */, major, minor }
        op(LOAD_WORD, TYPE, R1, 0, 0),
        op(MOVE, ACCESS, TYPE, 0, 0),
        op(AND_IMMEDIATE, TYPE, 0, 0, 0xffff),
        op(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        op(LOAD_WORD, MAJOR, R1, 4, 0),
        op(LOAD_WORD, MINOR, R1, 8, 0),
    ];
    for rule in &rules.allow {
        program.extend(tests_of(rule));
    }
    program.extend([op(MOVE_IMMEDIATE, R0, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    program
}

fn tests_of(rule: &DeviceRule) -> Vec<Instruction> {
    let kind = match rule.kind {
        DeviceKind::Char => DEV_CHAR,
        DeviceKind::Block => DEV_BLOCK,
    };
    let given = [(rule.read, ACC_READ), (rule.write, ACC_WRITE), (rule.mknod, ACC_MKNOD)];
    let denied = given.iter().filter(|(given, _)| !given).fold(0, |bits, (_, bit)| bits | bit);

    let mut body = vec![op(JUMP_UNEQUAL, TYPE, 0, 0, kind)];
    if denied != 0 {
        body.push(op(MOVE, SCRATCH, ACCESS, 0, 0));
        body.push(op(AND_IMMEDIATE, SCRATCH, 0, 0, denied));
        body.push(op(JUMP_UNEQUAL, SCRATCH, 0, 0, 0));
    }
    for (register, wanted) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = wanted {
            body.push(op(JUMP_UNEQUAL, register, 0, 0, number.cast_signed()));
        }
    }
    body.extend([op(MOVE_IMMEDIATE, R0, 0, 0, 1), op(EXIT, 0, 0, 0, 0)]);

    // A jump counts from the instruction after it to the one after this rule.
    let length = body.len();
    for (at, instruction) in body.iter_mut().enumerate() {
        if instruction.code == JUMP_UNEQUAL {
            instruction.offset = i16::try_from(length - at - 1).expect("a rule is a few tests");
        }
    }
    body
}

/// The part of `union bpf_attr` that loading a program reads.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that attaching a program reads.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Holds the group at `dir` (on a cgroup2 mount) to the rules, for as long as the group lives.
pub(crate) fn attach(dir: &Path, rules: &DeviceRules) -> Result<(), Error> {
    let fail = |what| move |source| Error::DeviceProgram { what, path: dir.to_owned(), source };
    let group = File::open(dir).map_err(|source| Error::File {
        what: "open",
        path: dir.to_owned(),
        source,
    })?;
    let program = load(&assemble(rules)).map_err(fail("load"))?;
    let mut attributes = AttachAttributes {
        target: group.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &mut attributes).map_err(fail("attach")).map(drop)
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = CString::new("Apache-2.0").expect("no NUL in it");
    let mut attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).expect("some hundreds of instructions"),
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..LoadAttributes::default()
    };
    let fd = bpf(BPF_PROG_LOAD, &mut attributes)?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: `attributes` is a live prefix of union bpf_attr, its size is passed, and the
    // pointers inside it outlive the call.
    let answer = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    match answer {
        -1 => Err(io::Error::last_os_error()),
        fd => Ok(i32::try_from(fd).expect("a descriptor fits")),
    }
}
