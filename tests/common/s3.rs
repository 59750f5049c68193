//! An S3 server in the process: files in a temporary folder, signatures
//! checked, conditional puts honoured one at a time for each name.
//!
//! It runs on threads of its own, so a test may block, or run a command that
//! talks to it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::{Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// A running server, stopped and emptied when dropped.
#[derive(Debug)]
pub struct S3Server {
    endpoint: String,
    runtime: Option<Runtime>,
    _folder: tempfile::TempDir,
}

impl S3Server {
    /// The one bucket that exists.
    pub const BUCKET: &str = "backups";
    /// The one access key that is let in.
    pub const ACCESS_KEY: &str = "test-access";
    /// Its secret.
    pub const SECRET_KEY: &str = "test-secret";

    /// Starts a server with an empty bucket on a free port of this machine.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(Self::BUCKET)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(Self::ACCESS_KEY, Self::SECRET_KEY));
        runtime.spawn(serve(listener, builder.build()));
        Self { endpoint, runtime: Some(runtime), _folder: folder }
    }

    /// The address to give to a client.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What a client of the command line needs in its environment.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT", self.endpoint.clone()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", Self::ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", Self::SECRET_KEY.to_owned()),
        ]
    }

    /// A client for the bucket.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        self.store_as(Self::ACCESS_KEY, Self::SECRET_KEY)
    }

    /// A client for the bucket that shows these credentials.
    pub fn store_as(&self, access_key: &str, secret_key: &str) -> Arc<dyn ObjectStore> {
        let store = AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name(Self::BUCKET)
            .with_access_key_id(access_key)
            .with_secret_access_key(secret_key)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .build();
        Arc::new(store.unwrap())
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// One lock for each name that is being written, since the server itself looks first and writes later.
#[derive(Clone, Debug, Default)]
struct Locks(Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>);

impl Locks {
    async fn lock(&self, name: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = Arc::clone(self.0.lock().unwrap().entry(name.to_owned()).or_default());
        lock.lock_owned().await
    }
}

async fn serve(listener: std::net::TcpListener, service: S3Service) {
    let listener = TcpListener::from_std(listener).unwrap();
    let locks = Locks::default();
    while let Ok((socket, _)) = listener.accept().await {
        let (service, locks) = (service.clone(), locks.clone());
        let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (service, locks) = (service.clone(), locks.clone());
            async move {
                let _guard = match *request.method() {
                    Method::PUT | Method::DELETE => Some(locks.lock(request.uri().path()).await),
                    _ => None,
                };
                let response = hyper::service::Service::call(&service, request).await;
                Ok::<_, Infallible>(response.expect("the server answers errors itself"))
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(socket), answer);
        tokio::spawn(async move {
            // A client that goes away breaks its connection: nothing to do about it.
            let _ = connection.await;
        });
    }
}
