//! One slice after another in one directory, and what a crash may leave of them.

use std::os::unix::fs::MetadataExt;

use muster_proto::shim::v1::{ExitRecord, ShimRecord};
use muster_proto::v1::User;

use super::*;

struct World {
    home: tempfile::TempDir,
    spares: Spares,
}

impl World {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        SliceDir::prepare_spool(home.path()).expect("a spool");
        let spares = Spares::open(home.path()).expect("none yet");
        Self { home, spares }
    }

    fn dir(&self, job: u32) -> SliceDir {
        SliceDir::of(self.home.path(), job, 1)
    }

    fn begin(&self, launch: &Launch) -> SliceDir {
        let dir = self.dir(launch.job);
        self.spares.write_launch(&dir, launch, None).expect("written");
        dir
    }

    /// From the launch to the exit record.
    fn run(&self, launch: &Launch) -> SliceDir {
        let dir = self.begin(launch);
        assert!(dir.claim(&ShimRecord { pid: launch.job, ..Default::default() }).expect("free"));
        dir.write_exit(&exit(launch.job)).expect("written");
        dir
    }

    /// How many directories wait.
    fn kept(&self) -> usize {
        fs::read_dir(spare(self.home.path())).expect("listed").count()
    }
}

fn launch(job: u32, script: &str) -> Launch {
    let user = User {
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        ..Default::default()
    };
    Launch {
        job,
        attempt: 1,
        batch: true,
        script: script.as_bytes().to_vec().into(),
        user: Some(user),
        comment: format!("of job {job}"),
        ..Launch::default()
    }
}

fn exit(job: u32) -> ExitRecord {
    ExitRecord { job, attempt: 1, ..ExitRecord::default() }
}

fn inode(path: &std::path::Path) -> u64 {
    fs::metadata(path).expect("there").ino()
}

#[test]
fn a_directory_serves_one_slice_after_another_and_each_finds_its_own_records_alone() {
    let world = World::new();
    let mut before = None;
    for job in 1..=4 {
        // Longer and shorter records by turns: what is left behind them is of nobody.
        let text = "x".repeat(if job % 2 == 0 { 1 } else { 400 });
        let launch = Launch { comment: text.clone(), ..launch(job, "#!/bin/sh\ntrue\n") };
        let dir = world.begin(&launch);
        assert_eq!(dir.read_launch().expect("whole").expect("there").comment, text);
        assert_eq!(
            (dir.read_record().expect("whole"), dir.read_exit().expect("whole")),
            (None, None)
        );
        assert!(dir.claim(&ShimRecord { pid: job, ..Default::default() }).expect("free"));
        dir.write_exit(&exit(job)).expect("written");
        assert_eq!(dir.read_record().expect("whole").expect("there").pid, job);
        assert_eq!(dir.read_exit().expect("whole"), Some(exit(job)));
        let now = (inode(dir.path()), inode(&dir.records_path()), inode(&dir.script_path()));
        assert_eq!(before.replace(now).unwrap_or(now), now, "the same files");
        world.spares.take_back(&dir, true).expect("kept");
        assert!(!dir.path().exists());
        assert_eq!(world.kept(), 1);
    }
}

#[test]
fn the_script_is_always_that_of_the_launch() {
    let world = World::new();
    let texts = ["#!/bin/sh\necho 1\n", "#!/bin/sh\necho 2\n", "#!/bin/sh\necho 2\n", ""];
    for (job, text) in (1..).zip(texts) {
        let batch = !text.is_empty();
        let dir = world.run(&Launch { batch, ..launch(job, text) });
        let found = fs::read_to_string(dir.script_path()).unwrap_or_default();
        assert_eq!(found, text);
        // Its user may do this to it.
        let _ = fs::set_permissions(
            dir.script_path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        );
        world.spares.take_back(&dir, true).expect("kept");
    }
    let changed = world.run(&launch(9, "#!/bin/sh\necho 9\n"));
    fs::set_permissions(changed.script_path(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("the owner's");
    fs::write(changed.script_path(), "#!/bin/sh\necho evil\n").expect("the owner's");
    world.spares.take_back(&changed, true).expect("kept");
    let dir = world.run(&launch(10, "#!/bin/sh\necho 9\n"));
    assert_eq!(fs::read_to_string(dir.script_path()).expect("there"), "#!/bin/sh\necho 9\n");
}

#[test]
fn what_is_not_surely_done_with_or_not_plain_is_removed() {
    let world = World::new();
    let unsure = world.run(&launch(1, "#!/bin/sh\n"));
    world.spares.take_back(&unsure, false).expect("removed");
    let noted = world.run(&launch(2, "#!/bin/sh\n"));
    fs::write(noted.path().join("end.pb"), "an epilog's").expect("written");
    world.spares.take_back(&noted, true).expect("removed");
    let long = Launch { environment: vec![b'x'; LONGEST].into(), ..launch(3, "#!/bin/sh\n") };
    let long = world.run(&long);
    world.spares.take_back(&long, true).expect("removed");
    let endless = world.begin(&launch(5, "#!/bin/sh\n"));
    world.spares.take_back(&endless, true).expect("removed");
    let gone = world.dir(4);
    world.spares.take_back(&gone, true).expect("gone already");
    assert!([unsure, noted, long, endless, gone].iter().all(|dir| !dir.path().exists()));
    assert_eq!(world.kept(), 0);
}

#[test]
fn a_wish_may_be_repeated() {
    let world = World::new();
    world.spares.take_back(&world.run(&launch(1, "#!/bin/sh\n")), true).expect("kept");
    world.spares.take_back(&world.run(&launch(2, "#!/bin/sh\n")), true).expect("kept");
    let dir = world.begin(&launch(3, "#!/bin/sh\n"));
    let again = Launch { comment: "again".to_owned(), ..launch(3, "#!/bin/sh\n") };
    world.spares.take_back(&world.run(&launch(4, "#!/bin/sh\n")), true).expect("kept");
    world.begin(&again);
    assert_eq!(dir.read_launch().expect("whole").expect("there").comment, "again");
    assert!(dir.claim(&ShimRecord::default()).is_ok());
}

#[test]
fn a_shim_that_comes_late_finds_nothing_to_do() {
    let world = World::new();
    let dir = world.run(&launch(1, "#!/bin/sh\n"));
    let mut opened = SliceFile::open(&dir).expect("opened").expect("there");
    world.spares.take_back(&dir, true).expect("kept");
    let next = world.begin(&launch(2, "#!/bin/sh\n"));
    let late = ShimRecord { pid: 77, ..ShimRecord::default() };
    assert!(!opened.claim_launch(&late).expect("looked at"), "it is another slice's");
    assert_eq!(next.read_launch().expect("whole").expect("there").job, 2);
    let right = ShimRecord { pid: 78, ..ShimRecord::default() };
    assert!(next.claim(&right).expect("free"));
}

/// A power cut may keep a renaming and lose what was written, or the other way round.
#[test]
fn after_a_power_cut_an_end_is_found_and_no_other_slices_end_is() {
    // The name is new, the contents are old.
    let world = World::new();
    let dir = world.run(&launch(1, "#!/bin/sh\n"));
    let old = fs::read(dir.records_path()).expect("readable");
    world.spares.take_back(&dir, true).expect("kept");
    let next = world.begin(&launch(2, "#!/bin/sh\n"));
    fs::write(next.records_path(), &old).expect("written");
    assert!(matches!(next.read_exit(), Err(SpoolError::Torn { .. })));
    assert!(matches!(next.read_launch(), Err(SpoolError::Torn { .. })));
    // The contents are new, the name is old: it is moved where it is looked for.
    fs::write(next.records_path(), old).expect("written");
    let place = spare(world.home.path()).join("5");
    fs::rename(next.path(), &place).expect("renamed");
    Spares::open(world.home.path()).expect("sorted");
    assert_eq!(world.dir(1).read_exit().expect("whole"), Some(exit(1)));
    assert_eq!(world.kept(), 0);
    // The same under the name of the directory's former slice.
    fs::rename(world.dir(1).path(), world.dir(9).path()).expect("renamed");
    Spares::open(world.home.path()).expect("sorted");
    assert_eq!(world.dir(1).read_exit().expect("whole"), Some(exit(1)));
    assert!(!world.dir(9).path().exists());
    // One that is at its place too, and one that says nothing, are removed.
    fs::create_dir(&place).expect("made");
    fs::copy(world.dir(1).records_path(), place.join("slice")).expect("copied");
    fs::create_dir(place.with_file_name("6")).expect("made");
    Spares::open(world.home.path()).expect("sorted");
    assert_eq!((world.kept(), world.dir(1).path().exists()), (0, true));
}
