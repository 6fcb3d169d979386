//! An API server in memory: lists in pages, watches, and nothing else.
//!
//! It serves what it is given and knows no kinds. Tests that need a thousand objects or a forgotten
//! version have them at once; what a real API server makes of an object, it does not know.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// An API server of one group of collections. It ends when dropped.
#[derive(Debug)]
pub struct Cluster {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The newest version.
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// By path, such as `/api/v1/pods`.
    collections: BTreeMap<String, Collection>,
    version: u64,
    /// Events after this version are kept.
    kept_after: u64,
}

#[derive(Debug, Default)]
struct Collection {
    /// By namespace and name.
    objects: BTreeMap<(String, String), Value>,
    /// By version: what happened.
    events: BTreeMap<u64, Value>,
}

impl Cluster {
    /// Starts one that has these collections, all empty.
    pub async fn start<S: Into<String>>(paths: impl IntoIterator<Item = S>) -> Result<Cluster> {
        let collections = paths.into_iter().map(|path| (path.into(), Collection::default())).collect();
        let state = Mutex::new(State { collections, version: 1, kept_after: 1 });
        let shared = Arc::new(Shared { state, version: watch::channel(1).0 });
        let address = SocketAddr::from(([127, 0, 0, 1], crate::ports::free_port()?));
        let mut cluster = Cluster { address, shared, serving: None };
        cluster.start_again().await?;
        Ok(cluster)
    }

    /// Serves again after [`Cluster::stop`], on the same address.
    pub async fn start_again(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.address).await.context("listening")?;
        let shared = self.shared.clone();
        self.serving = Some(tokio::spawn(async move {
            // Dropped with this task, they end.
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.spawn(serve(shared.clone(), connection));
                while connections.try_join_next().is_some() {}
            }
        }));
        Ok(())
    }

    /// Closes every connection, and takes no more. What it has stays.
    pub fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes a kubeconfig into `dir` for who reaches a cluster at `address`.
    pub fn kubeconfig(dir: &Path, address: SocketAddr) -> Result<PathBuf> {
        let path = dir.join(format!("kubeconfig-{}", address.port()));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "memory",
            "clusters": [{"name": "memory", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "memory", "context": {"cluster": "memory", "user": "nobody"}}],
        });
        std::fs::write(&path, config.to_string())?;
        Ok(path)
    }

    /// Puts an object into a collection, or replaces it. A collection that is not there comes into
    /// being.
    pub fn put(&self, path: &str, object: &Value) {
        let mut object = object.clone();
        let mut state = self.shared.lock();
        let version = state.next();
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let collection = state.collections.entry(path.to_owned()).or_default();
        let known = collection.objects.insert(key(&object), object.clone());
        let ty = if known.is_some() { "MODIFIED" } else { "ADDED" };
        collection.events.insert(version, json!({"type": ty, "object": object}));
        self.tell(state);
    }

    /// Removes an object, if it is there.
    pub fn remove(&self, path: &str, namespace: &str, name: &str) {
        let mut state = self.shared.lock();
        let version = state.next();
        let Some(collection) = state.collections.get_mut(path) else { return };
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(mut object) = collection.objects.remove(&key) {
            object["metadata"]["resourceVersion"] = version.to_string().into();
            collection.events.insert(version, json!({"type": "DELETED", "object": object}));
        }
        self.tell(state);
    }

    /// Removes all objects of a collection.
    pub fn clear(&self, path: &str) {
        let keys: Vec<_> = {
            let state = self.shared.lock();
            state.collections.get(path).into_iter().flat_map(|known| known.objects.keys().cloned()).collect()
        };
        for (namespace, name) in keys {
            self.remove(path, &namespace, &name);
        }
    }

    /// Forgets what happened until now: who goes on from an older version is told that it is
    /// expired.
    pub fn forget(&self) {
        let mut state = self.shared.lock();
        let version = state.next();
        state.kept_after = version;
        for collection in state.collections.values_mut() {
            collection.events.clear();
        }
        self.tell(state);
    }

    fn tell(&self, state: MutexGuard<'_, State>) {
        let version = state.version;
        drop(state);
        self.shared.version.send_replace(version);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// A page of a list, after what the page before ended with, or why there is none.
    fn page(&self, path: &str, limit: usize, rest: &str) -> Result<Value, u16> {
        let objects = &self.collections.get(path).ok_or(NOT_FOUND)?.objects;
        let mut start = Bound::Unbounded;
        if !rest.is_empty() {
            let (version, key) = rest.split_once('~').ok_or(GONE)?;
            let (namespace, name) = key.split_once('/').ok_or(GONE)?;
            // All pages of a list are of one version, and older ones than the newest are not kept.
            if version != self.version.to_string() {
                return Err(GONE);
            }
            start = Bound::Excluded((namespace.to_owned(), name.to_owned()));
        }
        let mut left = objects.range((start, Bound::Unbounded));
        let page: Vec<_> = left.by_ref().take(limit).collect();
        let rest = match (page.last(), left.next()) {
            (Some(((namespace, name), _)), Some(_)) => format!("{}~{namespace}/{name}", self.version),
            _ => String::new(),
        };
        let items: Vec<_> = page.into_iter().map(|(_, object)| object).collect();
        let metadata = json!({"resourceVersion": self.version.to_string(), "continue": rest});
        Ok(json!({"metadata": metadata, "items": items}))
    }

    /// The events of a collection after a version, as lines; `Err` if it has to be listed again.
    fn events(&self, path: &str, after: u64) -> Result<String, u16> {
        let collection = self.collections.get(path).ok_or(GONE)?;
        if after < self.kept_after {
            return Err(GONE);
        }
        let events = collection.events.range((Bound::Excluded(after), Bound::Unbounded));
        Ok(events.map(|(_, event)| event.to_string() + "\n").collect())
    }
}

const NOT_FOUND: u16 = 404;
const GONE: u16 = 410;

fn status(code: u16) -> Value {
    json!({"kind": "Status", "code": code, "message": "said by a test"})
}

fn key(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

/// Answers one request, and closes the connection. `None` if it broke.
async fn serve(shared: Arc<Shared>, mut connection: TcpStream) -> Option<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(connection.read_u8().await.ok()?);
    }
    let request = String::from_utf8(request).ok()?;
    let target = request.split(' ').nth(1)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parameter = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        pair.unwrap_or_default().replace("%2F", "/")
    };
    let mut answer = Vec::new();
    let mut say = |status: u16, body: &str| {
        answer = format!("HTTP/1.1 {status} said\r\nconnection: close\r\n\r\n{body}").into_bytes();
    };
    if parameter("watch") == "true" {
        say(200, "");
        connection.write_all(&answer).await.ok()?;
        return tell_events(&shared, connection, path, parameter("resourceVersion").parse().ok()?).await;
    }
    let limit = parameter("limit").parse().unwrap_or(usize::MAX);
    let page = shared.lock().page(path, limit, &parameter("continue"));
    match page {
        Ok(page) => say(200, &page.to_string()),
        Err(_) if path == "/readyz" => say(200, "ok"),
        Err(code) => say(code, &status(code).to_string()),
    }
    connection.write_all(&answer).await.ok()
}

/// Tells the events of a collection after a version until the other side goes.
async fn tell_events(shared: &Shared, mut connection: TcpStream, path: &str, mut after: u64) -> Option<()> {
    let mut changes = shared.version.subscribe();
    loop {
        changes.mark_unchanged();
        let (events, version) = {
            let state = shared.lock();
            (state.events(path, after), state.version)
        };
        match events {
            Ok(lines) => connection.write_all(lines.as_bytes()).await.ok()?,
            Err(code) => {
                let error = json!({"type": "ERROR", "object": status(code)}).to_string() + "\n";
                return connection.write_all(error.as_bytes()).await.ok();
            }
        }
        after = version;
        let mut byte = [0];
        tokio::select! {
            changed = changes.changed() => changed.ok()?,
            _ = connection.read(&mut byte) => return None,
        }
    }
}
