//! Where a repository is: a URL, a path, or a store that the caller brings.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreScheme};
use url::Url;

use crate::error::{Error, Result};
use crate::store::Store;

/// Where a repository is.
///
/// ```
/// use backstop::Location;
///
/// let on_disk = Location::from("/srv/backup");
/// let in_cloud = Location::from("s3://bucket/backup");
/// ```
///
/// Shown, also by `Debug`, without user names, passwords and queries, in which credentials may stand. They belong into
/// the environment: a cloud store doesn't look for them in its URL.
#[derive(Clone)]
#[non_exhaustive]
pub enum Location {
    /// `file:///…`, a plain path, `memory:`, `s3://…`, `gs://…` or `az://…`.
    ///
    /// Cloud stores take credentials and endpoints from their usual environment variables,
    /// and need the cargo features `aws`, `gcp` and `azure`. `memory:` is a new, empty
    /// store each time it is opened.
    Url(String),
    /// Any store; a repository takes up all of it.
    Store(Arc<dyn ObjectStore>),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Store(store) => store.fmt(f),
            Location::Url(text) => match parse(text) {
                Parsed::Url(url) => url.as_str().fmt(f),
                Parsed::Folder(folder) => folder.display().fmt(f),
                Parsed::Unreadable { scheme, .. } => write!(f, "{scheme}://…"),
            },
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if matches!(self, Location::Url(_)) { "Url" } else { "Store" };
        f.debug_tuple(name).field(&self.to_string()).finish()
    }
}

/// What a text names.
enum Parsed<'a> {
    /// Without whatever of it could be secret.
    Url(Url),
    Folder(&'a Path),
    /// It looks like a URL and isn't one, so nothing is known of where in it a secret may stand.
    Unreadable {
        scheme: &'a str,
        reason: url::ParseError,
    },
}

fn parse(text: &str) -> Parsed<'_> {
    match Url::parse(text) {
        // A one-letter scheme is a drive of Windows.
        Ok(url) if url.scheme().len() > 1 => Parsed::Url(without_secrets(url)),
        Err(reason) if text.contains("://") => {
            Parsed::Unreadable { scheme: text.split("://").next().unwrap_or_default(), reason }
        }
        _ => Parsed::Folder(Path::new(text)),
    }
}

/// Of Azure's own URLs the user is the container.
fn without_secrets(mut url: Url) -> Url {
    // They fail only where there is nothing to take out.
    if !matches!(url.scheme(), "abfs" | "abfss") {
        url.set_username("").unwrap_or_default();
    }
    url.set_password(None).unwrap_or_default();
    url.set_query(None);
    url.set_fragment(None);
    url
}

impl From<&str> for Location {
    fn from(url: &str) -> Self {
        Location::Url(url.to_owned())
    }
}

impl From<String> for Location {
    fn from(url: String) -> Self {
        Location::Url(url)
    }
}

impl From<&String> for Location {
    fn from(url: &String) -> Self {
        Location::Url(url.clone())
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        Location::Url(path.to_string_lossy().into_owned())
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Location::from(path.as_path())
    }
}

impl From<Arc<dyn ObjectStore>> for Location {
    fn from(store: Arc<dyn ObjectStore>) -> Self {
        Location::Store(store)
    }
}

/// Whether a local folder may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    Create,
    Open,
}

impl Store {
    /// Connects to a location.
    pub(crate) fn connect(location: &Location, intent: Intent) -> Result<Self> {
        match location {
            Location::Store(inner) => Ok(Self::new(Arc::clone(inner), inner.to_string(), false)),
            Location::Url(text) => match parse(text) {
                Parsed::Url(url) => Self::connect_url(&url, intent),
                Parsed::Folder(folder) => Self::connect_folder(folder, intent),
                Parsed::Unreadable { reason, .. } => Err(Error::invalid(format!("repository {location}"), reason)),
            },
        }
    }

    fn new(inner: Arc<dyn ObjectStore>, description: String, shared_file_system: bool) -> Self {
        Self {
            inner,
            description: description.into(),
            shared_file_system,
            refusal: None,
            folder: None,
            aside: Arc::default(),
        }
    }

    fn connect_url(url: &Url, intent: Intent) -> Result<Self> {
        let bad = |reason: String| Error::invalid(format!("repository {url}"), reason);
        if url.scheme() == "memory" {
            return Ok(Self::new(Arc::new(InMemory::new()), url.to_string(), false));
        }
        let (scheme, prefix) = ObjectStoreScheme::parse(url)
            .map_err(|error| bad(format!("{error}; use a path, file:///…, memory:, s3://…, gs://… or az://…")))?;
        let store: Arc<dyn ObjectStore> = match scheme {
            ObjectStoreScheme::Local => {
                let folder = url.to_file_path().map_err(|()| bad("it is not a path on this machine".into()))?;
                return Self::connect_folder(&folder, intent);
            }
            ObjectStoreScheme::AmazonS3 => cloud::s3(url)?,
            ObjectStoreScheme::GoogleCloudStorage => cloud::gcs(url)?,
            ObjectStoreScheme::MicrosoftAzure => cloud::azure(url)?,
            _ => return Err(bad("use a path, file:///…, memory:, s3://…, gs://… or az://…".into())),
        };
        Ok(Self::new(Arc::new(PrefixStore::new(store, prefix)), url.to_string(), false))
    }

    fn connect_folder(folder: &Path, intent: Intent) -> Result<Self> {
        if intent == Intent::Create {
            std::fs::create_dir_all(folder).map_err(|error| Error::file("create the folder", folder, error))?;
        }
        let folder =
            std::fs::canonicalize(folder).map_err(|error| Error::file("open the repository", folder, error))?;
        let local = LocalFileSystem::new_with_prefix(&folder)
            .map_err(|error| Error::invalid(format!("repository {}", folder.display()), error))?
            .with_fsync(true);
        let store = Self::new(Arc::new(local), folder.display().to_string(), is_network_file_system(&folder));
        Ok(Self { folder: Some(folder.into()), ..store })
    }
}

/// Whether `folder` lies on NFS or SMB, where one client may see another's files late.
#[cfg(target_os = "linux")]
fn is_network_file_system(folder: &Path) -> bool {
    const NFS: u64 = 0x6969;
    const SMB: u64 = 0x517b;
    const SMB2: u64 = 0xfe53_4d42;
    const CIFS: u64 = 0xff53_4d42;
    const AFS: u64 = 0x5346_414f;
    rustix::fs::statfs(folder).is_ok_and(|fs| [NFS, SMB, SMB2, CIFS, AFS].contains(&(fs.f_type as u64 & 0xffff_ffff)))
}

#[cfg(not(target_os = "linux"))]
fn is_network_file_system(_folder: &Path) -> bool {
    false
}

/// Cloud stores, each behind its feature.
mod cloud {
    use std::sync::Arc;

    use object_store::ObjectStore;
    use url::Url;

    use crate::error::{Error, Result};

    /// A pack takes its time on a slow line; the default of 30 seconds covers the whole body.
    #[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
    fn client_options() -> object_store::ClientOptions {
        use std::time::Duration;
        object_store::ClientOptions::new()
            .with_connect_timeout(Duration::from_secs(10))
            .with_timeout(Duration::from_secs(600))
    }

    #[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
    fn built<S: ObjectStore>(url: &Url, store: object_store::Result<S>) -> Result<Arc<dyn ObjectStore>> {
        let store = store.map_err(|error| Error::invalid(format!("repository {url}"), error))?;
        Ok(Arc::new(store))
    }

    #[cfg(not(all(feature = "aws", feature = "gcp", feature = "azure")))]
    fn missing(url: &Url, feature: &str) -> Result<Arc<dyn ObjectStore>> {
        Err(Error::unsupported(
            format!("repository {url}"),
            format!("it was built without this kind of store; build it with the cargo feature `{feature}`"),
        ))
    }

    #[cfg(feature = "aws")]
    pub(super) fn s3(url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let builder = object_store::aws::AmazonS3Builder::from_env().with_client_options(client_options());
        let plain_http = std::env::var("AWS_ENDPOINT_URL").or_else(|_| std::env::var("AWS_ENDPOINT"));
        let builder = builder.with_allow_http(plain_http.is_ok_and(|endpoint| endpoint.starts_with("http://")));
        built(url, builder.with_url(url.as_str()).build())
    }

    #[cfg(not(feature = "aws"))]
    pub(super) fn s3(url: &Url) -> Result<Arc<dyn ObjectStore>> {
        missing(url, "aws")
    }

    #[cfg(feature = "gcp")]
    pub(super) fn gcs(url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let builder = object_store::gcp::GoogleCloudStorageBuilder::from_env().with_client_options(client_options());
        built(url, builder.with_url(url.as_str()).build())
    }

    #[cfg(not(feature = "gcp"))]
    pub(super) fn gcs(url: &Url) -> Result<Arc<dyn ObjectStore>> {
        missing(url, "gcp")
    }

    #[cfg(feature = "azure")]
    pub(super) fn azure(url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let builder = object_store::azure::MicrosoftAzureBuilder::from_env().with_client_options(client_options());
        built(url, builder.with_url(url.as_str()).build())
    }

    #[cfg(not(feature = "azure"))]
    pub(super) fn azure(url: &Url) -> Result<Arc<dyn ObjectStore>> {
        missing(url, "azure")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_may_be_secret_is_shown_of_a_location() {
        for (text, shown) in [
            ("s3://KEY:SECRET@bucket/path", "s3://bucket/path"),
            ("az://container/path?sig=SECRET&sv=1#SECRET", "az://container/path"),
            ("https://KEY:SECRET@host/x?token=SECRET", "https://host/x"),
            (
                "abfss://container:SECRET@account.dfs.core.windows.net/x",
                "abfss://container@account.dfs.core.windows.net/x",
            ),
            ("ftp://KEY:SECRET@host/x", "ftp://host/x"),
            ("memory:?SECRET", "memory:"),
            ("s3://KEY:SEC/RET@bucket", "s3://\u{2026}"),
            ("/srv/back:up@home?", "/srv/back:up@home?"),
        ] {
            let location = Location::from(text);
            assert_eq!(location.to_string(), shown);
            let mut told = format!("{location:?}");
            for intent in [Intent::Open, Intent::Create] {
                if text.starts_with('/') {
                    continue;
                }
                match Store::connect(&location, intent) {
                    Ok(store) => told += &format!("{store:?} {}", store.description()),
                    Err(error) => {
                        let mut error: Option<&dyn std::error::Error> = Some(&error);
                        while let Some(one) = error {
                            told += &format!("{one} {one:?}");
                            error = one.source();
                        }
                    }
                }
            }
            for secret in ["KEY", "SECRET", "SEC/", "RET@"] {
                assert!(!told.contains(secret), "{text}: {told}");
            }
        }
    }
}
