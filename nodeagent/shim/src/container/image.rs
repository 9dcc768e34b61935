//! The root file system of an image: a directory, an OCI bundle's, or a squashfs file unpacked into a
//! store of the user's on the node, once for all tasks that want it.
//!
//! Runs in the task, after it has become the user.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};
use nix::unistd::geteuid;

/// How a squashfs file begins.
const SQUASHFS: &[u8] = b"hsqs";
/// Where the program that unpacks is looked for: the node's own, whatever the job's PATH says.
const UNPACKERS: [&str; 3] =
    ["/usr/bin/unsquashfs", "/usr/local/bin/unsquashfs", "/usr/sbin/unsquashfs"];
/// What could not be made without rights (devices, owners) is no fault: the user has none inside.
const WITHOUT_RIGHTS: i32 = 2;
/// An unpacked image that nobody has used for so long makes room for the next.
const UNUSED: Duration = Duration::from_secs(24 * 3600);

/// A root file system.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) path: PathBuf,
    /// Tasks of other steps may be in it too: none may write to it.
    pub(super) shared: bool,
}

/// Finds the root of an image; `tmp`: where the user's files go that nobody keeps.
pub(super) fn root(image: &Path, node: &str, tmp: &Path) -> Result<Root, String> {
    let shown = image.display();
    let about = fs::metadata(image).map_err(|e| format!("container image {shown}: {e}"))?;
    if about.is_dir() {
        let bundle = image.join("config.json").is_file() && image.join("rootfs").is_dir();
        let path = if bundle { image.join("rootfs") } else { image.to_owned() };
        return Ok(Root { path, shared: false });
    }
    let mut head = [0u8; 4];
    let read = File::open(image).and_then(|mut file| file.read(&mut head));
    if !matches!(read, Ok(4)) || head != SQUASHFS {
        return Err(format!(
            "container image {shown} is no directory, no OCI bundle and no squashfs file"
        ));
    }
    let tool = UNPACKERS.iter().map(Path::new).find(|path| path.exists()).ok_or_else(|| {
        format!(
            "container image {shown} is a squashfs file, and node {node} has no unsquashfs: install \
             squashfs-tools there"
        )
    })?;
    let path = unpacked(image, &about, tool, tmp)
        .map_err(|fault| format!("container image {shown}: {fault}"))?;
    Ok(Root { path, shared: true })
}

/// The image's files in the store: there already, or unpacked now while others wait.
fn unpacked(
    image: &Path,
    about: &fs::Metadata,
    tool: &Path,
    tmp: &Path,
) -> Result<PathBuf, String> {
    let store = tmp.join(format!("muster-images-{}", geteuid()));
    let of_store = |e: io::Error| format!("{}: {e}", store.display());
    private(&store).map_err(of_store)?;
    // Another file under the same name is another image.
    let (dev, ino, size) = (about.dev(), about.ino(), about.size());
    let name = format!("{dev:x}-{ino:x}-{size:x}-{:x}.{:x}", about.mtime(), about.mtime_nsec());
    let place = store.join(&name);
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(store.join(format!("{name}.lock")))
        .map_err(of_store)?;
    // Shared while it is used, so that nobody waits for the end of another's task.
    let lock = Flock::lock(lock, FlockArg::LockShared).map_err(|(_, e)| of_store(e.into()))?;
    lock.set_modified(SystemTime::now()).map_err(of_store)?;
    if !place.is_dir() {
        lock.relock(FlockArg::LockExclusive).map_err(|e| of_store(e.into()))?;
        // Another may have been first.
        if !place.is_dir() {
            make_room(&store, &name);
            unpack(image, tool, &store.join(format!("{name}.part")), &place)?;
        }
        lock.relock(FlockArg::LockShared).map_err(|e| of_store(e.into()))?;
    }
    // Held as long as the task and what it starts: so it is known to be in use.
    fcntl(&*lock, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|e| of_store(e.into()))?;
    std::mem::forget(lock);
    Ok(place)
}

fn unpack(image: &Path, tool: &Path, part: &Path, place: &Path) -> Result<(), String> {
    let _ = fs::remove_dir_all(part);
    let out = Command::new(tool)
        .args(["-no-progress", "-d"])
        .args([part, image])
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{}: {e}", tool.display()))?;
    let done = matches!(out.status.code(), Some(0 | WITHOUT_RIGHTS)) && part.is_dir();
    if !done {
        let text = String::from_utf8_lossy(&out.stderr);
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        let _ = fs::remove_dir_all(part);
        return Err(format!("{}: {}", tool.display(), last.unwrap_or("no reason given")));
    }
    fs::rename(part, place).map_err(|e| format!("{}: {e}", place.display()))
}

/// A folder of the user's alone. In a place where everybody may write somebody else may have made it.
fn private(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let about = fs::symlink_metadata(path)?;
    match about.is_dir() && about.uid() == geteuid().as_raw() && about.mode() & 0o077 == 0 {
        true => Ok(()),
        false => Err(io::Error::other("is not a folder of this user's alone")),
    }
}

/// Removes other images that nobody uses. What cannot be removed stays.
fn make_room(store: &Path, wanted: &str) {
    for entry in fs::read_dir(store).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(image) = name.strip_suffix(".lock").filter(|image| *image != wanted) else {
            continue;
        };
        let used = entry.metadata().and_then(|about| about.modified());
        let old = used.is_ok_and(|at| at.elapsed().is_ok_and(|since| since > UNUSED));
        if !old {
            continue;
        }
        let Ok(file) = File::open(&path) else { continue };
        // Whoever takes the lock later finds no image and unpacks it anew.
        if let Ok(_lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            let _ = fs::remove_dir_all(store.join(image));
        }
    }
}

/// Makes a place in an unpacked root for something to be mounted at, as the image need not have it.
pub(super) fn make_place(root: &Path, target: &str, directory: bool) -> io::Result<()> {
    let mut at = root.to_owned();
    let parts: Vec<&str> = target.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    for (number, part) in parts.iter().enumerate() {
        at.push(part);
        match fs::symlink_metadata(&at) {
            Ok(about) if about.is_dir() => {}
            // A link leads where only the runtime knows.
            Ok(_) => return Ok(()),
            Err(_) if number + 1 == parts.len() && !directory => drop(File::create(&at)?),
            Err(_) => match fs::create_dir(&at) {
                // Another task was first.
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_its_root_and_what_is_no_image_is_named() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        let of = |path: &Path| root(path, "n1", dir).map(|root| root.path);
        assert_eq!(of(dir).unwrap(), dir);
        fs::create_dir(dir.join("rootfs")).unwrap();
        fs::write(dir.join("config.json"), "{}").unwrap();
        assert_eq!(of(dir).unwrap(), dir.join("rootfs"));
        fs::write(dir.join("a.tar"), "something").unwrap();
        assert!(of(&dir.join("a.tar")).unwrap_err().contains("no squashfs file"));
        assert!(of(&dir.join("none")).unwrap_err().contains("No such file"));
    }

    /// A stand-in for unsquashfs that writes a line into a count for each image that it unpacks.
    fn tool(dir: &Path, line: &str) -> PathBuf {
        let path = dir.join("unpack");
        let text = format!("#!/bin/sh\necho x >> {}/count\n{line}\n", dir.display());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn an_image_is_unpacked_once_and_one_that_changed_again() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        let image = dir.join("i.sqsh");
        let tool = tool(dir, "/bin/mkdir \"$3\" && /bin/cp \"$4\" \"$3/file\"; exit 2");
        let unpack = || {
            let about = fs::metadata(&image).unwrap();
            let root = unpacked(&image, &about, &tool, dir).unwrap();
            fs::read_to_string(root.join("file")).unwrap()
        };
        fs::write(&image, "hsqs one").unwrap();
        assert_eq!((unpack(), unpack()), ("hsqs one".into(), "hsqs one".into()));
        fs::write(&image, "hsqs another").unwrap();
        assert_eq!(unpack(), "hsqs another");
        assert_eq!(fs::read_to_string(dir.join("count")).unwrap(), "x\nx\n");
    }

    #[test]
    fn what_cannot_be_unpacked_leaves_nothing_and_says_why() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        let image = dir.join("i.sqsh");
        fs::write(&image, "hsqs").unwrap();
        let tool = tool(dir, "/bin/mkdir \"$3\"; echo 'FATAL ERROR: it is broken' >&2; exit 1");
        let about = fs::metadata(&image).unwrap();
        let fault = unpacked(&image, &about, &tool, dir).unwrap_err();
        assert!(fault.ends_with("FATAL ERROR: it is broken"), "{fault}");
        let store = dir.join(format!("muster-images-{}", geteuid()));
        let left = fs::read_dir(&store).unwrap().flatten().filter(|e| e.path().is_dir()).count();
        assert_eq!(left, 0);
    }

    #[test]
    fn a_store_that_others_can_write_to_is_none() {
        let place = tempfile::tempdir().unwrap();
        let store = place.path().join("store");
        private(&store).unwrap();
        fs::set_permissions(&store, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        assert!(private(&store).is_err());
        std::os::unix::fs::symlink(place.path(), place.path().join("link")).unwrap();
        assert!(private(&place.path().join("link")).is_err());
    }

    #[test]
    fn places_for_mounts_are_made_and_links_are_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        make_place(root, "/a/b", true).unwrap();
        make_place(root, "/a/file", false).unwrap();
        std::os::unix::fs::symlink("/nowhere", root.join("link")).unwrap();
        make_place(root, "/link/x", true).unwrap();
        assert!(root.join("a/b").is_dir() && root.join("a/file").is_file());
    }
}
