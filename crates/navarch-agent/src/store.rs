//! What proxies were sent last, on disk, for the time when the control plane is away: a proxy that starts
//! then is served from here.
//!
//! A file for each proxy and type, to which accepted responses are appended as they came. It is written again
//! when half of it is outdated. Secrets are never kept.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use bytes::Bytes;
use navarch_envoy::any::TYPE_URL_PREFIX;
use navarch_envoy::wire::put_field;
use xxhash_rust::xxh3::xxh3_64;

use crate::relay::wire::{self, Head, Protocol};

/// Bytes of one response that is read back; more is not one.
const FRAME_BYTES_MAX: u32 = 512 << 20;
/// Bytes by which a file may outgrow what is in use of it, beside as much again.
const SLACK: u64 = 256 << 10;
/// A type whose resources hold keys.
const SECRET: &str = "envoy.extensions.transport_sockets.tls.v3.Secret";
/// What a file is called until it is complete.
const UNFINISHED: &str = ".new";

/// How responses of a file are read.
const PARTIAL: u8 = 0;
const COMPLETE: u8 = 1;

/// The store. Clones share it.
#[derive(Clone)]
pub struct Store {
    directory: PathBuf,
    sender: mpsc::Sender<Record>,
}

/// A response that a client has accepted.
struct Record {
    client: String,
    protocol: Protocol,
    type_url: String,
    message: Bytes,
    is_complete: bool,
}

/// The resources of a type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// State of the world: the last version.
    pub version: String,
    /// By name, with their versions.
    pub resources: BTreeMap<String, (String, Bytes)>,
}

impl Store {
    /// A store in `directory`, with a thread that writes.
    ///
    /// # Errors
    /// If the directory or the thread cannot be made.
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        make_directory(&directory)?;
        let (sender, records) = mpsc::channel();
        let writer = Writer { directory: directory.clone(), files: BTreeMap::new() };
        std::thread::Builder::new().name("store".to_owned()).spawn(move || writer.run(&records))?;
        Ok(Store { directory, sender })
    }

    /// Keeps a response. Returns at once.
    pub fn record(
        &self,
        client: &str,
        protocol: Protocol,
        type_url: &str,
        message: Bytes,
        is_complete: bool,
    ) {
        if file_name(type_url).is_none() {
            return;
        }
        let (client, type_url) = (client.to_owned(), type_url.to_owned());
        // Without the writer there is nobody to tell; it has said why.
        let _ = self.sender.send(Record { client, protocol, type_url, message, is_complete });
    }

    /// All that is kept for a client, by type.
    #[must_use]
    pub fn load(&self, client: &str, protocol: Protocol) -> BTreeMap<String, Stored> {
        let mut found = BTreeMap::new();
        let Ok(entries) = fs::read_dir(self.directory.join(client)) else { return found };
        for entry in entries.flatten() {
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if name.ends_with(UNFINISHED) {
                continue;
            }
            match read(&entry.path(), protocol) {
                Ok(stored) => _ = found.insert(format!("{TYPE_URL_PREFIX}{name}"), stored),
                Err(error) => tracing::warn!(%error, path = %entry.path().display(), "cannot read the store"),
            }
        }
        found
    }
}

/// The name of the file of a type; nothing if it is not kept.
fn file_name(type_url: &str) -> Option<&str> {
    let name = type_url.strip_prefix(TYPE_URL_PREFIX)?;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'));
    (plain && !name.is_empty() && name.len() < 200 && !name.starts_with('.') && name != SECRET)
        .then_some(name)
}

fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

struct Writer {
    directory: PathBuf,
    files: BTreeMap<PathBuf, Open>,
}

/// A file that is appended to.
struct Open {
    file: File,
    len: u64,
    /// Its length at which it is written again.
    len_max: u64,
}

impl Writer {
    fn run(mut self, records: &mpsc::Receiver<Record>) {
        while let Ok(record) = records.recv() {
            if let Err(error) = self.write(&record) {
                tracing::warn!(%error, directory = %self.directory.display(), "cannot write the store");
            }
        }
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        let Record { client, protocol, type_url, message, is_complete } = record;
        let Some(name) = file_name(type_url) else { return Ok(()) };
        let path = self.directory.join(client).join(name);
        make_directory(&self.directory.join(client))?;
        if *is_complete {
            // It takes the place of all that was there.
            let open = create(&path, COMPLETE, message)?;
            self.files.insert(path, open);
            return Ok(());
        }
        if !self.files.contains_key(&path) {
            // What an earlier process left behind a crash is left out, so that what follows can be read.
            let stored = read(&path, *protocol).unwrap_or_default();
            self.files.insert(path.clone(), rewrite(&path, *protocol, &stored)?);
        }
        let Some(open) = self.files.get_mut(&path) else { return Ok(()) };
        write_frame(&mut open.file, PARTIAL, message)?;
        open.len += frame_len(message);
        if open.len > open.len_max {
            let stored = read(&path, *protocol)?;
            let open = rewrite(&path, *protocol, &stored)?;
            self.files.insert(path, open);
        }
        Ok(())
    }
}

fn frame_len(payload: &[u8]) -> u64 {
    13 + payload.len() as u64
}

/// Kind, length, checksum and the response.
fn write_frame(out: &mut impl Write, kind: u8, payload: &[u8]) -> io::Result<()> {
    let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut head = Vec::with_capacity(13);
    head.push(kind);
    head.extend(len.to_le_bytes());
    head.extend(xxh3_64(payload).to_le_bytes());
    out.write_all(&head)?;
    out.write_all(payload)
}

/// The next frame; nothing where the file ends, or stops making sense, as after a crash.
fn read_frame(input: &mut impl Read) -> io::Result<Option<(u8, Bytes)>> {
    let mut head = [0; 13];
    match input.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let [kind, a, b, c, d, sum @ ..] = head;
    let len = u32::from_le_bytes([a, b, c, d]);
    if len > FRAME_BYTES_MAX {
        return Ok(None);
    }
    let mut payload = Vec::new();
    input.by_ref().take(u64::from(len)).read_to_end(&mut payload)?;
    let whole = payload.len() == len as usize && xxh3_64(&payload) == u64::from_le_bytes(sum);
    Ok(whole.then(|| (kind, payload.into())))
}

/// A file that has one response.
fn create(path: &Path, kind: u8, message: &[u8]) -> io::Result<Open> {
    replace(path, |out| write_frame(out, kind, message))?;
    let file = OpenOptions::new().append(true).open(path)?;
    let len = frame_len(message);
    Ok(Open { file, len, len_max: len * 2 + SLACK })
}

/// The file again, with what is in use of it.
fn rewrite(path: &Path, protocol: Protocol, stored: &Stored) -> io::Result<Open> {
    let mut payload = Vec::new();
    put_field(&mut payload, 0x0a, stored.version.as_bytes());
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let type_url = format!("{TYPE_URL_PREFIX}{name}");
    for (name, (version, message)) in &stored.resources {
        let mut any = Vec::new();
        put_field(&mut any, 0x0a, type_url.as_bytes());
        put_field(&mut any, 0x12, message);
        if protocol == Protocol::Delta {
            let mut resource = Vec::new();
            put_field(&mut resource, 0x0a, version.as_bytes());
            put_field(&mut resource, 0x12, &any);
            put_field(&mut resource, 0x1a, name.as_bytes());
            any = resource;
        }
        put_field(&mut payload, 0x12, &any);
    }
    create(path, COMPLETE, &payload)
}

fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&unfinished)?;
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()?;
    fs::rename(&unfinished, path)
}

/// What a file says.
fn read(path: &Path, protocol: Protocol) -> io::Result<Stored> {
    let mut input = BufReader::new(File::open(path)?);
    let mut stored = Stored::default();
    while let Some((kind, message)) = read_frame(&mut input)? {
        if kind == COMPLETE {
            stored.resources.clear();
        }
        stored.take(&message, protocol);
    }
    Ok(stored)
}

impl Stored {
    fn take(&mut self, message: &Bytes, protocol: Protocol) {
        Head::of(message).version.clone_into(&mut self.version);
        for resource in wire::resources(message) {
            let (name, version, any) = match protocol {
                Protocol::Delta => {
                    let (name, version) = wire::name_and_version(resource);
                    (name, version, wire::value_of(resource))
                }
                Protocol::Sotw => (wire::name_in(wire::value_of(resource)), "", resource),
            };
            // Copied, so that the rest of the response can go.
            let value = Bytes::copy_from_slice(wire::value_of(any));
            self.resources.insert(name.to_owned(), (version.to_owned(), value));
        }
        if protocol == Protocol::Delta {
            for name in wire::removed(message) {
                self.resources.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use navarch_envoy::proto::envoy::config::cluster::v3::Cluster;
    use navarch_envoy::proto::envoy::service::discovery::v3::{
        DeltaDiscoveryResponse, DiscoveryResponse, Resource,
    };
    use prost::Message;

    use super::*;

    const CLUSTERS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

    fn cluster(name: &str) -> Cluster {
        Cluster { name: name.to_owned(), ..Cluster::default() }
    }

    fn delta(resources: &[(&str, &str)], removed: &[&str]) -> Bytes {
        let resource = |(name, version): &(&str, &str)| Resource {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            resource: Some(navarch_envoy::any::any(&cluster(name))),
            ..Resource::default()
        };
        let response = DeltaDiscoveryResponse {
            resources: resources.iter().map(resource).collect(),
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            type_url: CLUSTERS.to_owned(),
            ..DeltaDiscoveryResponse::default()
        };
        response.encode_to_vec().into()
    }

    fn writer(directory: &Path) -> Writer {
        Writer { directory: directory.to_owned(), files: BTreeMap::new() }
    }

    fn record(message: Bytes, protocol: Protocol, is_complete: bool) -> Record {
        let (client, type_url) = ("client".to_owned(), CLUSTERS.to_owned());
        Record { client, protocol, type_url, message, is_complete }
    }

    fn names(directory: &Path, protocol: Protocol) -> Vec<(String, String)> {
        let (sender, _) = mpsc::channel();
        let store = Store { directory: directory.to_owned(), sender };
        let mut all = store.load("client", protocol);
        let stored = all.remove(CLUSTERS).unwrap_or_default();
        for (name, (_, message)) in &stored.resources {
            assert_eq!(Cluster::decode(message.clone()).expect("a cluster").name, *name);
        }
        stored.resources.into_iter().map(|(name, (version, _))| (name, version)).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
    }

    #[test]
    fn what_was_accepted_last_is_kept_over_restarts() {
        let temp = tempfile::tempdir().expect("a directory");
        let check = |expected: &[(&str, &str)]| {
            assert_eq!(names(temp.path(), Protocol::Delta), pairs(expected));
        };
        let mut first = writer(temp.path());
        first.write(&record(delta(&[("a", "1"), ("b", "1")], &[]), Protocol::Delta, true)).expect("written");
        check(&[("a", "1"), ("b", "1")]);
        first
            .write(&record(delta(&[("c", "1"), ("a", "2")], &["b"]), Protocol::Delta, false))
            .expect("written");
        check(&[("a", "2"), ("c", "1")]);
        // Another process goes on where the first one stopped.
        let mut second = writer(temp.path());
        second.write(&record(delta(&[("d", "1")], &["c"]), Protocol::Delta, false)).expect("written");
        check(&[("a", "2"), ("d", "1")]);
        second.write(&record(delta(&[("e", "1")], &[]), Protocol::Delta, true)).expect("written");
        check(&[("e", "1")]);
    }

    #[test]
    fn state_of_the_world_is_kept_by_name() {
        let temp = tempfile::tempdir().expect("a directory");
        let response = |names: &[&str]| -> Bytes {
            let resources = names.iter().map(|name| navarch_envoy::any::any(&cluster(name))).collect();
            let version_info = names.concat();
            let type_url = CLUSTERS.to_owned();
            DiscoveryResponse { resources, version_info, type_url, ..DiscoveryResponse::default() }
                .encode_to_vec()
                .into()
        };
        let mut writer = writer(temp.path());
        writer.write(&record(response(&["a", "b"]), Protocol::Sotw, true)).expect("written");
        writer.write(&record(response(&["c"]), Protocol::Sotw, true)).expect("written");
        assert_eq!(names(temp.path(), Protocol::Sotw), pairs(&[("c", "")]));
        writer.write(&record(response(&["d"]), Protocol::Sotw, false)).expect("written");
        assert_eq!(names(temp.path(), Protocol::Sotw), pairs(&[("c", ""), ("d", "")]));
    }

    #[test]
    fn a_crash_in_the_middle_costs_only_the_last_response() {
        let temp = tempfile::tempdir().expect("a directory");
        let mut first = writer(temp.path());
        first.write(&record(delta(&[("a", "1")], &[]), Protocol::Delta, true)).expect("written");
        first.write(&record(delta(&[("b", "1")], &[]), Protocol::Delta, false)).expect("written");
        let path = temp.path().join("client/envoy.config.cluster.v3.Cluster");
        let whole = fs::read(&path).expect("a file");
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).expect("written");
            let found = names(temp.path(), Protocol::Delta);
            assert!(found.is_empty() || found == pairs(&[("a", "1")]), "{len}: {found:?}");
        }
        let mut broken = whole.clone();
        broken[20] ^= 1;
        fs::write(&path, &broken).expect("written");
        assert!(names(temp.path(), Protocol::Delta).is_empty());
    }

    #[test]
    fn a_file_does_not_grow_without_end() {
        let temp = tempfile::tempdir().expect("a directory");
        let mut writer = writer(temp.path());
        let name = "x".repeat(10_000);
        for version in 0..200 {
            let message = delta(&[(&name, &version.to_string())], &[]);
            writer.write(&record(message, Protocol::Delta, version == 0)).expect("written");
        }
        let len =
            fs::metadata(temp.path().join("client/envoy.config.cluster.v3.Cluster")).expect("a file").len();
        assert!(len < 3 * 30_000 + SLACK, "{len}");
        assert_eq!(names(temp.path(), Protocol::Delta), pairs(&[(&name, "199")]));
    }

    #[test]
    fn keys_and_answers_are_not_kept() {
        let check = |type_url: &str, expected: Option<&str>| assert_eq!(file_name(type_url), expected);
        check(CLUSTERS, Some("envoy.config.cluster.v3.Cluster"));
        check("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", None);
        check("istio.io/debug/syncz", None);
        check("type.googleapis.com/../../etc/passwd", None);
        check("type.googleapis.com/..", None);
        check("type.googleapis.com/", None);
    }
}
