//! Names of interfaces as components write them: `namespace:package/interface@version`.

/// A parsed interface name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceName<'a> {
    /// `wasi`
    pub namespace: &'a str,
    /// `io`
    pub package: &'a str,
    /// `streams`
    pub interface: &'a str,
    /// `0.2.6`
    pub version: Option<&'a str>,
    path: &'a str,
}

impl<'a> InterfaceName<'a> {
    /// Splits a name; `None` for a plain function or type name.
    pub fn parse(name: &'a str) -> Option<Self> {
        let (path, version) = match name.split_once('@') {
            Some((path, version)) => (path, Some(version)),
            None => (name, None),
        };
        let (namespace, rest) = path.split_once(':')?;
        let (package, interface) = rest.split_once('/')?;
        Some(Self {
            namespace,
            package,
            interface,
            version,
            path,
        })
    }

    /// The name without its version: `wasi:io/streams`.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// Whether the version is `MAJOR.MINOR.` and a number, for a prefix like `0.2.`; never a pre-release.
    pub fn is_release_of(&self, prefix: &str) -> bool {
        let patch = self
            .version
            .and_then(|version| version.strip_prefix(prefix));
        patch.is_some_and(|patch| {
            !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit())
        })
    }
}
