//! A small disk of its own, so that "full" is real: a tmpfs, which only root may mount.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one with `bytes` at `path`, which must not exist. `Err` says why this machine does not let us.
    pub fn mount(path: &Path, bytes: u64) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may mount a small disk".to_owned());
        }
        std::fs::create_dir(path).map_err(|error| error.to_string())?;
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(path)
            .output()
            .map_err(|error| format!("cannot run mount: {error}"))?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            return Err(format!("mount failed: {}", said.trim()));
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file until nothing more fits. May be done again, when something else made room.
    ///
    /// # Panics
    ///
    /// When something other than a full disk ends it.
    pub fn fill_up(&self) {
        let path = self.filler();
        let opened = OpenOptions::new().create(true).append(true).open(path);
        let mut file = opened.expect("the disk is mounted");
        let mut block: &[u8] = &[b'x'; 64 * 1024];
        loop {
            match file.write(block) {
                Ok(_) => {}
                // Ever smaller, down to the last byte.
                Err(error) if error.kind() == ErrorKind::StorageFull => match block.len() {
                    1 => return,
                    length => block = &block[..length / 2],
                },
                Err(error) => panic!("filling the disk: {error}"),
            }
        }
    }

    /// Takes back what [`Self::fill_up`] wrote.
    ///
    /// # Panics
    ///
    /// When nothing was written.
    pub fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("the disk was filled");
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    /// Bytes that are free.
    ///
    /// # Panics
    ///
    /// When the disk is not there any more.
    pub fn free_bytes(&self) -> u64 {
        let facts = rustix::fs::statvfs(&self.path).expect("the disk is mounted");
        facts.f_bavail * facts.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is just dying may hold it for a moment.
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
    }
}
