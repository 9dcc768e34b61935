//! For tests: where the library is, and copies of it with a file of their own.

use std::path::{Path, PathBuf};

use crate::file::Scene;

/// What a copy and its file are called.
const LIBRARY: &str = "libnvidia-ml.so";
const FILE: &str = "libnvidia-ml.toml";

/// The library that cargo built beside the running test.
///
/// # Panics
/// When it is not there, with the places that were looked at.
#[must_use]
pub fn library() -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own binary");
    let places = exe.ancestors().skip(1).take(2);
    let tried: Vec<PathBuf> =
        places.flat_map(|p| [p.join("libnvidia_ml.so"), p.join("deps/libnvidia_ml.so")]).collect();
    let found = tried.iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("the double of NVML is at none of {tried:?}")).clone()
}

/// A machine of GPUs for one node: a copy of the library and its file.
#[derive(Debug)]
pub struct Double {
    folder: PathBuf,
    pub scene: Scene,
}

impl Double {
    /// Puts a library and its file into `folder`. A process loads a library once by its inode,
    /// so every double is a copy.
    ///
    /// # Panics
    /// When the folder does not take it.
    #[must_use]
    pub fn new(folder: &Path, layout: &str) -> Self {
        std::fs::create_dir_all(folder).expect("the folder of a double");
        std::fs::copy(library(), folder.join(LIBRARY)).expect("a copy of the library");
        let double = Double { folder: folder.to_owned(), scene: Scene::of(layout) };
        double.scene.write(&folder.join(FILE));
        double
    }

    /// The shared library to load.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join(LIBRARY)
    }

    /// Changes what is wrong with it, from the next call on.
    pub fn change(&mut self, change: impl FnOnce(&mut Scene)) {
        change(&mut self.scene);
        self.scene.write(&self.folder.join(FILE));
    }
}
