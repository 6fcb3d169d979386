//! An API server in memory: lists in pages, watches, and single objects that are written.
//!
//! It serves what it is given and knows no kinds. Tests that need a thousand objects or a forgotten
//! version have them at once; what a real API server makes of an object, it does not know.

mod store;

pub use self::store::Write;
use self::store::{NOT_FOUND, Review, State, Target, key, status};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
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

impl Cluster {
    /// Starts one that has these collections, all empty.
    pub async fn start<S: Into<String>>(paths: impl IntoIterator<Item = S>) -> Result<Cluster> {
        let collections = paths.into_iter().map(|path| (path.into(), Default::default())).collect();
        let state = Mutex::new(State { collections, version: 1, kept_after: 1, ..State::default() });
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
        // Whoever says nothing of its status leaves it as it is.
        if let (true, Some(known)) = (object["status"].is_null(), collection.objects.get(&key(&object)))
            && !known["status"].is_null()
        {
            object["status"] = known["status"].clone();
        }
        collection.put(version, object);
        self.tell(state);
    }

    /// An object as it is, by its path.
    pub fn object(&self, path: &str) -> Option<Value> {
        self.shared.lock().object(&Target::of(path)?).ok()
    }

    /// What has been written by requests since the last call.
    pub fn take_writes(&self) -> Vec<Write> {
        std::mem::take(&mut self.shared.lock().writes)
    }

    /// Refuses requests with a method for paths with a part, from now on.
    pub fn refuse(&self, method: &str, part: &str, status: u16) {
        self.shared.lock().refusals.push((method.to_owned(), part.to_owned(), status));
    }

    /// Refuses nothing any more.
    pub fn refuse_nothing(&self) {
        self.shared.lock().refusals.clear();
    }

    /// Answers what is sent to a path, which is not kept.
    pub fn review(&self, path: &str, answer: impl Fn(&Value) -> Value + Send + 'static) {
        self.shared.lock().reviews.insert(path.to_owned(), Review(Box::new(answer)));
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
        self.shared.tell(state);
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

    fn tell(&self, state: MutexGuard<'_, State>) {
        let version = state.version;
        drop(state);
        self.version.send_replace(version);
    }

    /// Answers a request that is neither a list nor a watch.
    fn answer(&self, method: &str, content: &str, path: &str, body: &[u8]) -> Result<Value, u16> {
        let mut state = self.lock();
        let refused =
            state.refusals.iter().find(|(of, part, _)| of == method && path.contains(part.as_str()));
        if let Some((_, _, status)) = refused {
            return Err(*status);
        }
        let target = Target::of(path).ok_or(NOT_FOUND)?;
        if method == "GET" {
            return state.object(&target);
        }
        let body: Value = serde_json::from_slice(body).map_err(|_| 400_u16)?;
        if let Some(Review(answer)) = state.reviews.get(path) {
            return Ok(answer(&body));
        }
        let changed = state.change(method, content, &target, body.clone())?;
        state.writes.push(Write { method: method.to_owned(), path: path.to_owned(), body });
        self.tell(state);
        Ok(changed)
    }
}

/// Answers one request, and closes the connection. `None` if it broke.
async fn serve(shared: Arc<Shared>, mut connection: TcpStream) -> Option<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(connection.read_u8().await.ok()?);
    }
    let request = String::from_utf8(request).ok()?;
    let header = |name: &str| {
        let mut lines = request.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    };
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    connection.read_exact(&mut body).await.ok()?;
    let mut line = request.split(' ');
    let (method, target) = (line.next()?, line.next()?);
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
        Ok(page) if method == "GET" => say(200, &page.to_string()),
        _ if path == "/readyz" => say(200, "ok"),
        _ if method != "GET" || page == Err(NOT_FOUND) => {
            match shared.answer(method, header("content-type"), path, &body) {
                Ok(object) => say(200, &object.to_string()),
                Err(code) => say(code, &status(code).to_string()),
            }
        }
        Ok(_) => say(405, ""),
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
