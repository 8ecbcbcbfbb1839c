//! Whose directory it is, and what is in it.

use crate::port::{Answer, Port};
use crate::store::embedded::directory::Directory;
use crate::store::embedded::{Embedded, FORMAT, Options};
use kubesim_actors::ports::store::{Reply, Request, Under};
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::timeout;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("kubesim-store-{}-{number}", std::process::id());
        Folder(std::env::temp_dir().join(name).join("a/store"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let top = self.0.ancestors().nth(2).map(Path::to_owned);
        let _ = fs::remove_dir_all(top.unwrap_or_default());
    }
}

fn open(folder: &Folder) -> Result<Embedded, String> {
    Embedded::open(&folder.0, Options::default()).map_err(|why| why.to_string())
}

#[test]
fn a_directory_is_made_and_opened_again() {
    let folder = Folder::new();
    assert_eq!(open(&folder).expect("made").revision(), 1);
    assert_eq!(open(&folder).expect("opened again").revision(), 1);
    let names: Vec<_> = fs::read_dir(&folder.0).expect("a directory").flatten().collect();
    assert_eq!(names.len(), 3, "nothing is left beside its files: {names:?}");
}

#[test]
fn a_directory_in_use_says_by_whom() {
    let folder = Folder::new();
    let first = open(&folder).expect("made");
    let why = open(&folder).expect_err("it is in use");
    assert!(why.contains(&format!("in use by process {}:", std::process::id())), "{why}");
    drop(first);
    open(&folder).expect("free again");
}

#[test]
fn a_newer_format_is_left_alone() {
    let folder = Folder::new();
    drop(open(&folder));
    fs::write(folder.0.join("format"), format!("{}\n", FORMAT + 1)).expect("written");
    let why = open(&folder).expect_err("it is newer");
    assert!(why.contains("format 2") && why.contains("newer"), "{why}");
    fs::write(folder.0.join("format"), "a letter").expect("written");
    let why = open(&folder).expect_err("it is no store's");
    assert!(why.contains("\"a letter\""), "{why}");
    fs::remove_file(folder.0.join("format")).expect("removed");
    assert!(open(&folder).is_err(), "data of an unknown format is not taken for the current one");
}

#[test]
fn a_crash_while_it_is_made_leaves_one_that_is_made_again() {
    for format in [None, Some(FORMAT)] {
        let folder = Folder::new();
        drop(Directory::open(&folder.0).expect("made, without data"));
        fs::write(folder.0.join("store.redb.new"), "half").expect("written");
        if let Some(format) = format {
            fs::write(folder.0.join("format"), format!("{format}\n")).expect("written");
        }
        assert_eq!(open(&folder).expect("made").revision(), 1);
    }
}

/// A new store in the place of a lost one would be taken for it by all who wait for it.
#[test]
fn a_store_whose_data_is_gone_is_not_made_anew() {
    let folder = Folder::new();
    drop(open(&folder));
    fs::remove_file(folder.0.join("store.redb")).expect("removed");
    let why = open(&folder).expect_err("its data is gone");
    assert!(why.contains("store.redb is gone"), "{why}");
}

/// Who stops listening need not wait for the next progress before the directory is free.
#[test]
fn a_watch_keeps_no_directory() {
    let folder = Folder::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), async {
        let store = open(&folder).expect("made");
        let told = Rc::new(RefCell::new(Vec::new()));
        let tell = Rc::clone(&told);
        let answer = Answer::new(move |reply| {
            tell.borrow_mut().push(reply);
            async { Ok(()) }
        });
        let watch = store.perform(Request::Watch { id: 7, under: Under::All, from: 2 }, answer);
        let watch = spawn_local(watch);
        while told.borrow().is_empty() {
            yield_now().await;
        }
        drop(store);
        open(&folder).expect("free again");
        timeout(Duration::from_secs(20), watch).await.expect("soon").expect("no panic");
        let told = told.borrow();
        assert!(matches!(told.last(), Some(Reply::Refused { id: 7, .. })), "{told:?}");
    });
}

#[test]
fn a_broken_file_is_refused_by_name() {
    let folder = Folder::new();
    drop(open(&folder));
    fs::write(folder.0.join("store.redb"), vec![7; 1 << 16]).expect("written");
    let why = open(&folder).expect_err("it is broken");
    assert!(why.contains(folder.0.to_str().expect("a text")), "{why}");
}
