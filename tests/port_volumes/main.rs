//! The volumes port: its driver, with directories and mounts of this machine, does what its model
//! in the simulator does. Each body here runs on both.

#![cfg(target_os = "linux")]

mod linux;
mod model;
#[path = "../common/skip.rs"]
mod skip;
mod world;

use self::linux::on_linux;
use self::world::{Asking, World};
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::volumes::{
    Access, File, Files, Medium, Part, PathKind, Plugin, Reply, Request, Volume,
};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Two tests of each body.
macro_rules! alike {
    ($($body:ident)*) => {
        mod on_the_model {
            $(#[test] fn $body() { crate::$body(&mut crate::model::Model::default()); })*
        }
        mod on_linux {
            $(#[test] fn $body() { crate::on_linux(|world| crate::$body(world)); })*
        }
    };
}

alike! {
    an_empty_directory_is_everybodys_and_keeps_what_is_in_it
    files_are_shown_by_links_and_change_as_a_whole
    what_is_no_file_any_more_goes
    files_may_be_in_directories
    paths_that_lead_elsewhere_are_refused
    files_have_their_modes_and_owners
    a_group_owns_what_it_may_use
    a_path_of_the_machine_is_what_it_is_said_to_be
    a_path_of_the_machine_is_made
    a_part_of_a_volume_is_what_it_was
    a_part_that_is_missing_is_made
    a_part_does_not_lead_out_of_its_volume
    what_there_is_is_listed_until_it_is_removed
    what_outlives_pods_is_made_for_everybody
    what_people_keep_must_be_there
    what_outlives_pods_goes_when_it_is_to
}

const POD: Uid = Uid(0x0102_0304 << 96);
const OTHER: Uid = Uid(0x0506_0708 << 96);

fn volume(plugin: Plugin) -> Volume {
    Volume { pod: POD, name: "v".into(), plugin }
}

fn file(content: &str, mode: u32) -> File {
    File { content: content.as_bytes().into(), mode, owner: None }
}

fn texts(all: &[(&str, &str)]) -> Files {
    all.iter().map(|(path, text)| ((*path).into(), file(text, 0o644))).collect()
}

fn empty(world: &mut impl World, medium: Medium, access: Access) -> String {
    let volume = volume(Plugin::EmptyDir);
    let made = Request::Empty { volume: volume.clone(), medium, access };
    world.ready(&volume, made).expect("it is made")
}

fn write(world: &mut impl World, plugin: Plugin, files: Files) -> Result<String, String> {
    write_for(world, plugin, files, Access::default())
}

fn write_for(
    world: &mut impl World,
    plugin: Plugin,
    files: Files,
    access: Access,
) -> Result<String, String> {
    let volume = volume(plugin);
    let files = Arc::new(files);
    let request = Request::Files { volume: volume.clone(), files, access };
    world.ready(&volume, request)
}

fn host_path(world: &mut impl World, path: &str, kind: PathKind) -> Result<String, String> {
    let volume = volume(Plugin::HostPath);
    let request = Request::HostPath { volume: volume.clone(), path: path.into(), kind };
    world.ready(&volume, request)
}

fn an_empty_directory_is_everybodys_and_keeps_what_is_in_it(world: &mut impl World) {
    for medium in [Medium::Disk, Medium::Memory { limit: Some(1 << 20) }] {
        let place = empty(world, medium, Access::default());
        assert!(place.ends_with(&format!("pods/{POD}/volumes/kubernetes.io~empty-dir/v")));
        assert_eq!(world.access(&place), Some((0o777, 0, 0)));
        world.make_file(&format!("{place}/a"), "kept");
        assert_eq!(empty(world, medium, Access::default()), place);
        assert_eq!(world.read(&format!("{place}/a")).as_deref(), Some("kept"));
        assert!(matches!(
            world.ask(Request::Remove { pod: POD }),
            Some(Reply::Removed { result: Ok(()), .. })
        ));
        assert_eq!(world.names(&place), [""; 0]);
    }
}

fn files_are_shown_by_links_and_change_as_a_whole(world: &mut impl World) {
    for plugin in [Plugin::ConfigMap, Plugin::Secret] {
        let first = texts(&[("a", "1"), ("b", "2")]);
        let place = write(world, plugin, first.clone()).expect("written");
        assert_eq!(world.names(&place), ["a", "b"]);
        assert_eq!(world.link(&format!("{place}/a")).as_deref(), Some("..data/a"));
        let data = world.link(&format!("{place}/..data")).expect("a link");
        assert!(data.starts_with("..") && !data.contains('/'), "{data}");
        // The same again is no change.
        assert_eq!(write(world, plugin, first).as_deref(), Ok(&*place));
        assert_eq!(world.link(&format!("{place}/..data")).as_ref(), Some(&data));
        write(world, plugin, texts(&[("a", "1"), ("b", "3")])).expect("written");
        assert_ne!(world.link(&format!("{place}/..data")).as_ref(), Some(&data));
        assert_eq!(world.read(&format!("{place}/a")).as_deref(), Some("1"));
        assert_eq!(world.read(&format!("{place}/b")).as_deref(), Some("3"));
        assert_eq!(world.access(&format!("{place}/{data}")), None, "the old one is gone");
        write(world, plugin, Files::new()).expect("written");
        assert_eq!(world.names(&place), [""; 0]);
    }
}

fn what_is_no_file_any_more_goes(world: &mut impl World) {
    let place = write(world, Plugin::ConfigMap, texts(&[("a", "1"), ("d/b", "2")]));
    let place = place.expect("written");
    write(world, Plugin::ConfigMap, texts(&[("d", "a file now")])).expect("written");
    assert_eq!(world.names(&place), ["d"]);
    assert_eq!(world.read(&format!("{place}/d")).as_deref(), Some("a file now"));
    assert_eq!(world.read(&format!("{place}/a")), None);
}

fn files_may_be_in_directories(world: &mut impl World) {
    let files = texts(&[("x/y/z", "deep"), ("x/w", "less")]);
    let place = write(world, Plugin::Projected, files).expect("written");
    assert_eq!(world.names(&place), ["x"]);
    assert_eq!(world.link(&format!("{place}/x")).as_deref(), Some("..data/x"));
    assert_eq!(world.read(&format!("{place}/x/y/z")).as_deref(), Some("deep"));
    assert_eq!(world.read(&format!("{place}/x/w")).as_deref(), Some("less"));
    assert_eq!(world.names(&format!("{place}/x")), ["w", "y"]);
}

fn paths_that_lead_elsewhere_are_refused(world: &mut impl World) {
    for (path, why) in [
        ("", "invalid path: must not be empty: "),
        ("/etc/passwd", "invalid path: must be relative path: /etc/passwd"),
        ("a/../../b", "invalid path: must not contain '..': a/../../b"),
        ("..data", "invalid path: must not start with '..': ..data"),
    ] {
        let refused = write(world, Plugin::ConfigMap, texts(&[(path, "x")]));
        assert_eq!(refused, Err(why.to_owned()));
    }
}

fn files_have_their_modes_and_owners(world: &mut impl World) {
    let token = File { owner: Some(1234), ..file("t", 0o600) };
    let files = Files::from([("token".into(), token), ("run".into(), file("x", 0o755))]);
    let place = write(world, Plugin::Projected, files).expect("written");
    assert_eq!(world.access(&format!("{place}/..data/token")), Some((0o600, 1234, 0)));
    assert_eq!(world.access(&format!("{place}/..data/run")), Some((0o755, 0, 0)));
    // Another mode is a change.
    let files = Files::from([("run".into(), file("x", 0o777))]);
    write(world, Plugin::Projected, files).expect("written");
    assert_eq!(world.access(&format!("{place}/..data/run")), Some((0o777, 0, 0)));
}

fn a_group_owns_what_it_may_use(world: &mut impl World) {
    let access = Access { group: Some(2000) };
    let place = empty(world, Medium::Disk, access);
    assert_eq!(world.access(&place), Some((0o2777, 0, 2000)));
    let files = || Files::from([("d/a".into(), file("x", 0o400))]);
    let place = write_for(world, Plugin::Secret, files(), access).expect("written");
    assert_eq!(world.access(&place), Some((0o2777, 0, 2000)));
    assert_eq!(world.access(&format!("{place}/..data/d")), Some((0o2755, 0, 2000)));
    assert_eq!(world.access(&format!("{place}/..data/d/a")), Some((0o440, 0, 2000)));
    let data = world.link(&format!("{place}/..data"));
    write_for(world, Plugin::Secret, files(), access).expect("written");
    assert_eq!(world.link(&format!("{place}/..data")), data, "nothing changed");
}

fn a_path_of_the_machine_is_what_it_is_said_to_be(world: &mut impl World) {
    use PathKind::{Any, BlockDevice, CharDevice, Directory, File, Socket};
    world.make_directory("/etc/d");
    world.make_file("/etc/f", "x");
    world.make_link("/etc/l", "d");
    let found = |world: &mut _, path, kind| host_path(world, path, kind).is_ok();
    assert!(found(world, "/etc/d", Directory) && found(world, "/etc/l", Directory));
    assert!(found(world, "/etc/f", File));
    assert!(found(world, "/etc/nothing", Any));
    assert_eq!(world.access("/etc/nothing"), None, "it is not made");
    assert_eq!(host_path(world, "/etc/d", Any), Ok(world.shown("/etc/d")));
    for (path, kind, what) in [
        ("/etc/f", Directory, "a directory"),
        ("/etc/nothing", Directory, "a directory"),
        ("/etc/d", File, "a file"),
        ("/etc/f", Socket, "a socket file"),
        ("/etc/f", CharDevice, "a character device"),
        ("/etc/d", BlockDevice, "a block device"),
        ("/etc/f", PathKind::DirectoryOrCreate, "a directory"),
        ("/etc/d", PathKind::FileOrCreate, "a file"),
    ] {
        let why = format!("hostPath type check failed: {path} is not {what}");
        assert_eq!(host_path(world, path, kind), Err(why));
    }
}

fn a_path_of_the_machine_is_made(world: &mut impl World) {
    let made = host_path(world, "/run/a/b", PathKind::DirectoryOrCreate);
    assert_eq!(made, Ok(world.shown("/run/a/b")));
    assert_eq!(world.access("/run/a/b"), Some((0o755, 0, 0)));
    host_path(world, "/run/a/f", PathKind::FileOrCreate).expect("it is made");
    assert_eq!(world.access("/run/a/f"), Some((0o644, 0, 0)));
    world.make_file("/run/a/f", "kept");
    host_path(world, "/run/a/f", PathKind::FileOrCreate).expect("it is there");
    assert_eq!(world.read("/run/a/f").as_deref(), Some("kept"));
}

fn part_of(place: &str, index: u32) -> Part {
    let (volume, container) = ("v".into(), "c".into());
    Part { pod: POD, volume, container, index, within: place.into() }
}

fn a_part_of_a_volume_is_what_it_was(world: &mut impl World) {
    let place = write(world, Plugin::ConfigMap, texts(&[("a", "1")])).expect("written");
    let part = world.part(&part_of(&place, 0), "a").expect("a part");
    assert!(part.ends_with(&format!("pods/{POD}/volume-subpaths/v/c/0")), "{part}");
    assert_eq!(world.read(&part).as_deref(), Some("1"));
    write(world, Plugin::ConfigMap, texts(&[("a", "2")])).expect("written");
    assert_eq!(world.read(&part).as_deref(), Some("1"), "it is mounted already");
    assert_eq!(world.part(&part_of(&place, 0), "a").as_ref(), Ok(&part));
    assert_eq!(world.read(&part).as_deref(), Some("1"));
    let second = world.part(&part_of(&place, 1), "a").expect("a part");
    assert_eq!(world.read(&second).as_deref(), Some("2"));
}

fn a_part_that_is_missing_is_made(world: &mut impl World) {
    let place = empty(world, Medium::Disk, Access::default());
    let part = world.part(&part_of(&place, 0), "x/y").expect("a part");
    assert_eq!(world.access(&format!("{place}/x/y")), Some((0o777, 0, 0)));
    world.make_file(&format!("{place}/x/y/f"), "seen");
    assert_eq!(world.read(&format!("{part}/f")).as_deref(), Some("seen"));
}

fn a_part_does_not_lead_out_of_its_volume(world: &mut impl World) {
    let place = empty(world, Medium::Disk, Access::default());
    world.make_link(&format!("{place}/out"), "../../../../../../../../etc");
    world.make_directory(&format!("{place}/d"));
    world.make_link(&format!("{place}/in"), "d");
    let why = format!("subpath \"out\" not within volume path {place}");
    assert_eq!(world.part(&part_of(&place, 0), "out"), Err(why));
    for path in ["../x", "/etc", ""] {
        assert!(world.part(&part_of(&place, 0), path).is_err(), "{path}");
    }
    world.part(&part_of(&place, 1), "in").expect("it stays within");
}

fn what_there_is_is_listed_until_it_is_removed(world: &mut impl World) {
    assert_eq!(world.ask(Request::List), None);
    let place = write(world, Plugin::Secret, texts(&[("a", "1")])).expect("written");
    empty(world, Medium::Memory { limit: None }, Access::default());
    world.part(&part_of(&place, 0), "a").expect("a part");
    let other = Volume { pod: OTHER, ..volume(Plugin::EmptyDir) };
    let (medium, access) = (Medium::Disk, Access::default());
    let made = Request::Empty { volume: other.clone(), medium, access };
    world.ready(&other, made).expect("it is made");
    let listed = |pods: &[Uid]| Some(Reply::Listed { pods: pods.into() });
    assert_eq!(world.ask(Request::List), listed(&[POD, OTHER]));
    for again in [false, true] {
        let removed = world.ask(Request::Remove { pod: POD });
        assert_eq!(removed, Some(Reply::Removed { pod: POD, result: Ok(()) }), "{again}");
        assert_eq!(world.ask(Request::List), listed(&[OTHER]));
    }
    assert_eq!(world.read(&format!("{place}/a")), None);
}

fn local(
    world: &mut impl World,
    pod: Uid,
    path: &str,
    make: bool,
    access: Access,
) -> Result<String, String> {
    let volume = Volume { pod, ..volume(Plugin::Local) };
    let path = path.into();
    world.ready(&volume, Request::Local { volume: volume.clone(), path, make, access })
}

const PLACE: &str = "/var/lib/volumes/pvc-1";

fn what_outlives_pods_is_made_for_everybody(world: &mut impl World) {
    let place = local(world, POD, PLACE, true, Access::default()).expect("it is made");
    assert_eq!(place, world.shown(PLACE));
    assert_eq!(world.access(PLACE), Some((0o777, 0, 0)));
    world.make_file(&format!("{place}/f"), "kept");
    world.ask(Request::Remove { pod: POD });
    let access = Access { group: Some(2000) };
    let again = local(world, OTHER, PLACE, true, access).expect("it is there");
    assert_eq!(world.read(&format!("{again}/f")).as_deref(), Some("kept"));
    assert_eq!(world.access(PLACE), Some((0o2777, 0, 2000)));
    assert_eq!(world.access(&format!("{place}/f")), Some((0o664, 0, 2000)));
}

fn what_people_keep_must_be_there(world: &mut impl World) {
    let why = "path \"/var/lib/mine\" does not exist";
    let missing = local(world, POD, "/var/lib/mine", false, Access::default());
    assert_eq!(missing, Err(why.to_owned()));
    world.make_directory("/var/lib/mine");
    let found = local(world, POD, "/var/lib/mine", false, Access::default());
    assert_eq!(found, Ok(world.shown("/var/lib/mine")));
    assert_eq!(world.access("/var/lib/mine"), Some((0o755, 0, 0)));
}

fn what_outlives_pods_goes_when_it_is_to(world: &mut impl World) {
    let place = local(world, POD, PLACE, true, Access::default()).expect("it is made");
    world.make_directory("/etc/mine");
    world.make_file("/etc/mine/f", "mine");
    world.make_directory(&format!("{place}/d"));
    world.make_file(&format!("{place}/d/f"), "1");
    world.make_link(&format!("{place}/out"), &world.shown("/etc/mine"));
    for again in [false, true] {
        let discarded = world.ask(Request::Discard { path: PLACE.into() });
        let done = Reply::Discarded { path: PLACE.into(), result: Ok(()) };
        assert_eq!(discarded, Some(done), "{again}");
        assert_eq!(world.names("/var/lib/volumes"), Vec::<String>::new());
    }
    assert_eq!(world.read("/etc/mine/f").as_deref(), Some("mine"), "what a link leads to stays");
}

// What only a real file system can show.

/// Of what is removed, a path of the machine that was shown in a pod's place is no part.
#[test]
fn what_is_mounted_is_not_removed_with_its_pod() {
    on_linux(|world| {
        world.make_directory("/etc/mine");
        world.make_file("/etc/mine/f", "kept");
        let within = world.shown("/etc/mine");
        let part = world.part(&part_of(&within, 0), ".").expect("a part");
        assert_eq!(world.read(&format!("{part}/f")).as_deref(), Some("kept"));
        world.ask(Request::Remove { pod: POD });
        assert_eq!(world.read(&format!("{part}/f")), None);
        assert_eq!(world.read("/etc/mine/f").as_deref(), Some("kept"));
    });
}

#[test]
fn memory_is_limited() {
    on_linux(|world| {
        let place = empty(world, Medium::Memory { limit: Some(64 << 10) }, Access::default());
        let full = fs::write(format!("{place}/f"), vec![0_u8; 128 << 10]);
        assert_eq!(full.expect_err("it is full").raw_os_error(), Some(28), "ENOSPC");
    });
}

/// Two files that belong together are never seen apart, through the link to their directory.
#[test]
fn nobody_sees_a_half() {
    on_linux(|world| {
        let pair = |n: u32| texts(&[("a", &n.to_string()), ("b", &n.to_string())]);
        let place = write(world, Plugin::ConfigMap, pair(0)).expect("written");
        let done = Arc::new(AtomicBool::new(false));
        let reader = {
            let (place, done) = (place.clone(), Arc::clone(&done));
            thread::spawn(move || {
                let mut seen = 0_u32;
                while !done.load(Ordering::Relaxed) {
                    let data = fs::read_link(format!("{place}/..data")).expect("always a link");
                    let read =
                        |name| fs::read_to_string(format!("{place}/{}/{name}", data.display()));
                    // The directory may have been replaced and removed meanwhile.
                    if let (Ok(a), Ok(b)) = (read("a"), read("b")) {
                        assert_eq!(a, b);
                        seen += 1;
                    }
                    let shown = fs::read_to_string(format!("{place}/a"));
                    assert!(shown.is_ok_and(|text| !text.is_empty()) || seen > 0);
                }
                seen
            })
        };
        for n in 1..500 {
            write(world, Plugin::ConfigMap, pair(n)).expect("written");
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().expect("it reads") > 0);
        assert_eq!(world.read(&format!("{place}/b")).as_deref(), Some("499"));
    });
}

/// A writer that was cut off in between leaves nothing that stays.
#[test]
fn what_a_dead_writer_left_goes() {
    on_linux(|world| {
        let place = write(world, Plugin::ConfigMap, texts(&[("a", "1")])).expect("written");
        fs::create_dir(format!("{place}/..1")).expect("a directory");
        fs::write(format!("{place}/..1/a"), "half").expect("written");
        std::os::unix::fs::symlink("..1", format!("{place}/..data_tmp")).expect("a link");
        write(world, Plugin::ConfigMap, texts(&[("a", "2")])).expect("written");
        let left = fs::read_dir(&place).expect("a directory").count();
        assert_eq!(left, 3, "its directory, ..data and a");
        assert_eq!(world.read(&format!("{place}/a")).as_deref(), Some("2"));
    });
}
