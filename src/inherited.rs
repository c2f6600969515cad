//! Inherited: the sockets that a process was started with.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{SockRef, Type};

use crate::datagram::DatagramSocket;
use crate::endpoint::{Endpoint, Host, Port, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::info::{Address, Family};
use crate::options::SocketOptions;
use crate::resolve::resolve;
use crate::server::{ServerSocket, is_dual, is_ipv6_missing};
use crate::sys::{self, Borrowed, FIRST_INHERITED, Owned, Wait};
use crate::unix::{self, Adopted, Identity, Ours, SocketFile};
use crate::wait::Deadline;

const OPERATION: &str = "inherit";
const LISTEN: &str = "listen";
const BIND: &str = "bind";
const READY: &str = "ready";

/// Of sd_listen_fds(3): whose the descriptors are, how many, and their names.
pub(crate) const LISTEN_PID: &str = "LISTEN_PID";
pub(crate) const LISTEN_FDS: &str = "LISTEN_FDS";
pub(crate) const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";
/// Newer systemd tells the process by this, too (sd_listen_fds(3)): the inode of its pidfd, which
/// is never given again, as the number is. It must not be passed on.
pub(crate) const LISTEN_PIDFDID: &str = "LISTEN_PIDFDID";
/// From a predecessor: a [`Note`].
pub(crate) const HAND_OVER: &str = "KEEPSOCK_HAND_OVER";

/// In a note: of a socket that was asked for with port 0.
const ANY_PORT: &str = "any";

/// The name of a descriptor without one, as of sd_listen_fds_with_names(3).
const UNNAMED: &str = "unknown";

/// The sockets that a process was started with: by systemd, or another service manager that
/// speaks the same (`LISTEN_FDS`, sd_listen_fds(3)), or by a predecessor that it replaces
/// ([`HandOver`](crate::HandOver)). Dropping it closes those that nobody took.
///
/// [`listen`](Inherited::listen), for datagrams [`bind`](Inherited::bind), is all that a server
/// needs for three ways to be started: by itself, by socket activation, and as a successor.
///
/// ```
/// use keepsock::{Inherited, SocketOptions};
/// let mut inherited = Inherited::take()?;
/// let server = inherited.listen("127.0.0.1:0", &SocketOptions::new())?;
/// let service = server.serve(|client| {
///     let _ = client.write_all(b"hello\n");
/// })?;
/// inherited.ready()?;   // the predecessor, if there is one, may go
/// # Ok::<(), keepsock::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Inherited {
    items: Vec<Item>,
    /// To the predecessor.
    channel: Option<Owned>,
    /// Whether the files of Unix sockets are this process's to remove.
    ours: Arc<Ours>,
    /// What gets its options when this process is ready: they would hold for the predecessor, too,
    /// which may go on.
    unset: Vec<Box<dyn Unset>>,
}

/// What has not set its options on what it has taken over, for the predecessor's sake.
pub(crate) trait Unset: std::fmt::Debug + Send + Sync {
    /// Sets them; there is nothing to do if it is gone.
    fn set(&self) -> Result<()>;
}

#[derive(Debug)]
struct Item {
    number: u32,
    name: String,
    adopted: Adopted,
}

/// What a predecessor tells, as text: the number of the descriptor by which it is told that this
/// process is ready, which sockets were asked for with port 0, and which have a file that is to be
/// removed when they close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub ready: u32,
    /// Which socket that descriptor is: another one that has its number now is none of it, and
    /// the variable was left behind by a process that was before.
    pub channel: Identity,
    /// Which of the descriptors, from 0.
    pub any_ports: Vec<usize>,
    pub files: Vec<FileNote>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileNote {
    /// Which of the descriptors, from 0.
    pub index: usize,
    pub identity: Identity,
    pub path: PathBuf,
}

impl Inherited {
    /// Takes the descriptors that the process was started with, once: whoever calls it again gets
    /// none. There are none, either, if `LISTEN_PID` or `LISTEN_PIDFDID` names another process:
    /// this one has then merely inherited the variables. They stay as they are. The descriptors are
    /// kept from programs that this one starts.
    ///
    /// Call it early: a program that has opened files by chance where it was promised to find its
    /// sockets has no way to know. Windows has nothing of this kind, so nothing is inherited there.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument): the variables hold something else than
    /// numbers, or not as many names as there are descriptors, or one of those is not open.
    /// None is taken then.
    ///
    /// ```
    /// let mut inherited = keepsock::Inherited::take()?;
    /// for name in inherited.names() {
    ///     println!("{name}");
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn take() -> Result<Inherited> {
        static TAKEN: Mutex<bool> = Mutex::new(false);
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        if *taken {
            return Ok(Inherited::default());
        }
        let garbage = |what: String| Error::new(ErrorKind::InvalidArgument, OPERATION).detail(what);
        let variables = [LISTEN_PID, LISTEN_PIDFDID, LISTEN_FDS, LISTEN_FDNAMES, HAND_OVER];
        let variables = variables.map(std::env::var_os);
        let own = (std::process::id(), sys::own_pidfd_inode);
        let parsed = parse(variables.each_ref().map(Option::as_deref), own);
        let Some((names, note)) = parsed.map_err(garbage)? else {
            return Ok(Inherited::default());
        };
        let note = note.filter(|note| sys::identity_of(note.ready) == Some(note.channel));
        let count = names.len() as u32 + u32::from(note.is_some());
        let mut owned = sys::take_inherited(FIRST_INHERITED, count).map_err(|(number, e)| {
            let what = format!("{LISTEN_FDS} is {}, but descriptor {number}: {e}", names.len());
            garbage(what).with_os_error(e.raw_os_error())
        })?;
        *taken = true;
        let channel = note.as_ref().and_then(|_| owned.pop());
        let ours = Arc::new(Ours::default());
        let (any_ports, mut files) = note.map(|n| (n.any_ports, n.files)).unwrap_or_default();
        let items = names.into_iter().zip(owned).enumerate().map(|(index, (name, socket))| {
            let file = files.iter().position(|f| f.index == index).map(|at| files.swap_remove(at));
            let file = file.map(|f| SocketFile::inherited(f.path, f.identity, ours.clone()));
            let adopted = Adopted { file, socket, any_port: any_ports.contains(&index) };
            Item { number: FIRST_INHERITED + index as u32, name, adopted }
        });
        Ok(Inherited { items: items.collect(), channel, ours, unset: Vec::new() })
    }

    /// The inherited listening stream socket that is bound to the endpoint, if there is one; else
    /// it listens itself, with [`hand_over`](SocketOptions::hand_over). The options hold for
    /// either.
    ///
    /// `*:80` is a socket that takes IPv4 and IPv6, `[::]:80` one for IPv6 only. Port 0 stands
    /// for the port that the system chose for the one who listened first with port 0; of a service
    /// manager's sockets none is meant by it. A UDP socket on that port is not meant, either, nor
    /// is a Unix socket whose path is another file's now.
    ///
    /// What a predecessor has handed over gets its options when this process says that it is
    /// [`ready`](Inherited::ready): the listener is the predecessor's, too, and if this process
    /// fails, nothing of it has changed. Who connected before has the predecessor's options. A
    /// [`backlog`](SocketOptions::backlog) that is not given stays as it was, and so do the mode
    /// and the owner of a Unix socket's file, given or not.
    ///
    /// # Errors
    /// Those of [`listen_with`](ServerSocket::listen_with) and
    /// [`from_owned`](ServerSocket::from_owned); [`WrongState`](ErrorKind::WrongState): what was
    /// inherited there is for packets, and a stream is asked for, or the other way round. What was
    /// inherited stays here then.
    ///
    /// ```
    /// # use keepsock::{Inherited, SocketOptions};
    /// let mut inherited = Inherited::take()?;
    /// let server = inherited.listen("*:0", &SocketOptions::new())?;
    /// println!("listening on {}", server.endpoint());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn listen<E>(&mut self, endpoint: E, options: &SocketOptions) -> Result<ServerSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(|e| Error::from(e).during(LISTEN))?;
        self.listen_at(endpoint, options)
    }

    fn listen_at(&mut self, endpoint: Endpoint, options: &SocketOptions) -> Result<ServerSocket> {
        options.validate(LISTEN)?;
        options.refuse_client_only(LISTEN)?;
        let kind = (Type::STREAM, LISTEN);
        let listens = |item: &Item| item.listens_for(options.sequenced);
        if let Some((_, item)) = self.bound_to(&endpoint, options, kind, listens)? {
            let number = item.number;
            return self
                .adopt(&options.for_inherited(&endpoint), |item| item.number == number)
                .map_err(|e| e.during(LISTEN).at(&endpoint));
        }
        // In the abstract namespace a stream listener and one for packets can have one name: a second
        // one would be made, and nobody take the first.
        let other = match &endpoint.0 {
            Target::Inet { .. } => None,
            _ => self.bound_to(&endpoint, options, kind, Item::listens)?,
        };
        if let Some((_, other)) = other {
            return Err(other.wrong_kind().during(LISTEN).at(&endpoint));
        }
        ServerSocket::listen_with(endpoint, &options.clone().hand_over(true))
    }

    /// All inherited listening sockets of a name, as one server: systemd's
    /// `FileDescriptorName=`, or what the predecessor called them. Without a name it is "unknown".
    /// Options are set as by [`listen`](Inherited::listen). Datagram sockets of that name are
    /// passed over and stay here, for [`datagram`](Inherited::datagram): systemd calls all sockets
    /// of a unit the same.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound): nothing of that name was inherited.
    /// [`WrongState`](ErrorKind::WrongState): one of them is neither a listening stream socket nor
    /// a datagram socket, or all are datagram sockets; the error says what it is. Those of
    /// [`from_owned`](ServerSocket::from_owned). All stay here then.
    ///
    /// ```
    /// # use keepsock::{ErrorKind, Inherited, SocketOptions};
    /// let mut inherited = Inherited::take()?;
    /// match inherited.server("http", &SocketOptions::new()) {
    ///     Ok(server) => println!("{}", server.endpoint()),
    ///     Err(e) if e.kind() == ErrorKind::NotFound => println!("not started by systemd"),
    ///     Err(e) => return Err(e),
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn server(&mut self, name: &str, options: &SocketOptions) -> Result<ServerSocket> {
        options.refuse_client_only(OPERATION)?;
        let first = self.need(name)?;
        let named = || self.items.iter().filter(|item| item.name == name);
        let wrong = named().find(|item| !item.listens() && !item.is_datagram());
        let all_wrong = || Some(first).filter(|_| !named().any(Item::listens));
        if let Some(item) = wrong.or_else(all_wrong) {
            return Err(item.wrong_kind());
        }
        self.adopt(options, |item| item.name == name && item.listens())
            .map_err(|e| e.during(OPERATION))
    }

    /// The first inherited datagram socket of a name, UDP or Unix; what else has that name is
    /// passed over. Its options are set at once: a predecessor, whose socket it is, too, receives
    /// with them from now on.
    ///
    /// But what a predecessor has handed over gets [`coalescing`](SocketOptions::coalescing) when
    /// this process says that it is [`ready`](Inherited::ready): a predecessor that has not asked
    /// for it would take several datagrams for one. From then on it does; so ask for it in either
    /// process, or have the predecessor stop receiving at once.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound): nothing of that name was inherited.
    /// [`WrongState`](ErrorKind::WrongState): none of that name is a datagram socket; the error
    /// says what the first one is. Those of [`from_owned`](DatagramSocket::from_owned). It stays
    /// here then.
    ///
    /// ```
    /// # use keepsock::{Inherited, SocketOptions};
    /// let mut inherited = Inherited::take()?;
    /// if let Ok(socket) = inherited.datagram("dns", &SocketOptions::new()) {
    ///     println!("{}", socket.endpoint());
    /// }
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn datagram(&mut self, name: &str, options: &SocketOptions) -> Result<DatagramSocket> {
        let first = self.need(name)?;
        let is_it = |item: &Item| item.name == name && item.is_datagram();
        match self.items.iter().position(is_it) {
            Some(index) => self.adopt_datagram(index, options).map_err(|e| e.during(OPERATION)),
            None => Err(first.wrong_kind()),
        }
    }

    /// The inherited datagram socket, UDP or Unix, that is bound to the endpoint and not connected,
    /// if there is one; else it binds one itself, with [`hand_over`](SocketOptions::hand_over).
    /// Which endpoint means which socket is as in [`listen`](Inherited::listen).
    ///
    /// The options hold for either, as those of [`datagram`](Inherited::datagram) do; a UDP socket
    /// that was inherited stays on the interface that it was bound to.
    ///
    /// # Errors
    /// Those of [`bind_with`](DatagramSocket::bind_with) and
    /// [`from_owned`](DatagramSocket::from_owned). What was inherited stays here then.
    ///
    /// ```
    /// # use keepsock::{Inherited, SocketOptions};
    /// # if cfg!(windows) { return Ok(()) }
    /// let mut inherited = Inherited::take()?;
    /// let socket = inherited.bind("*:0", &SocketOptions::new())?;
    /// println!("bound to {}", socket.endpoint());
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn bind<E>(&mut self, endpoint: E, options: &SocketOptions) -> Result<DatagramSocket>
    where
        E: TryInto<Endpoint>,
        Error: From<E::Error>,
    {
        let endpoint = endpoint.try_into().map_err(|e| Error::from(e).during(BIND))?;
        self.bind_at(endpoint, options)
    }

    fn bind_at(&mut self, endpoint: Endpoint, options: &SocketOptions) -> Result<DatagramSocket> {
        options.validate(BIND)?;
        options.refuse_client_only(BIND)?;
        match self.bound_to(&endpoint, options, (Type::DGRAM, BIND), Item::receives)? {
            Some((index, _)) => {
                let mut options = options.for_inherited(&endpoint);
                if matches!(&endpoint.0, Target::Inet { .. }) {
                    // They have said which one is meant.
                    (options.family, options.interface) = (Family::Any, None);
                }
                self.adopt_datagram(index, &options).map_err(|e| e.during(BIND).at(&endpoint))
            }
            None => DatagramSocket::bind_with(endpoint, &options.clone().hand_over(true)),
        }
    }

    /// The names of those that nobody took yet, in the order of their descriptors.
    ///
    /// ```
    /// let inherited = keepsock::Inherited::take()?;
    /// assert_eq!(inherited.names().len(), 0);   // a test is not started by systemd
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.items.iter().map(|item| item.name.as_str())
    }

    /// Tells the predecessor, if there is one, that this process serves, so that it ends; the
    /// second time it does nothing. Call it when everything that may fail has succeeded: before,
    /// the predecessor goes on as if nothing had been when this process ends, or drops this object.
    ///
    /// Just before that, servers that were taken from a predecessor get their options, and datagram
    /// sockets [`coalescing`](SocketOptions::coalescing). From now on the files of Unix sockets are
    /// this process's to remove. What nobody took is closed: clients would connect to it and never
    /// be accepted.
    ///
    /// # Errors
    /// [`Os`](ErrorKind::Os) and its kin; those of options that the system refuses. The predecessor
    /// has heard nothing then. That it is gone is no error.
    ///
    /// ```
    /// let mut inherited = keepsock::Inherited::take()?;
    /// inherited.ready()?;
    /// # Ok::<(), keepsock::Error>(())
    /// ```
    pub fn ready(&mut self) -> Result<()> {
        for socket in &self.unset {
            socket.set().map_err(|e| e.during(READY))?;
        }
        // Before it is said: the predecessor removes them no more once it has heard.
        self.ours.set(true);
        if let Some(channel) = &self.channel {
            // macOS refuses that when the predecessor is gone.
            let _ = sys::forbid_sigpipe(sys::borrow(channel));
            match sys::send(sys::borrow(channel), b"1", Wait::Yes) {
                Ok(_) => {}
                // It is gone, and this process serves.
                Err(e) if ErrorKind::of(&e) == ErrorKind::Reset => {}
                Err(e) => {
                    self.ours.set(false);
                    return Err(Error::os(READY, &e));
                }
            }
        }
        self.channel = None;
        self.unset.clear();
        self.ours.remove_closed();
        self.items.clear();
        Ok(())
    }

    /// The first one of a name, which there must be.
    fn need(&self, name: &str) -> Result<&Item> {
        if let Some(first) = self.items.iter().find(|item| item.name == name) {
            return Ok(first);
        }
        let known: Vec<_> = self.names().map(|name| format!("{name:?}")).collect();
        let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
        let what = format!("no descriptor is named {name:?}: there is {known}");
        Err(Error::new(ErrorKind::NotFound, OPERATION).detail(what))
    }

    /// Makes a server of those that are wanted. On failure they stay, in their order.
    fn adopt(
        &mut self,
        options: &SocketOptions,
        wanted: impl Fn(&Item) -> bool,
    ) -> Result<ServerSocket> {
        let all = std::mem::take(&mut self.items);
        let (taken, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(wanted);
        self.items = rest;
        let (labels, mut sockets): (Vec<_>, Vec<_>) =
            taken.into_iter().map(|item| ((item.number, item.name), item.adopted)).unzip();
        let now = self.channel.is_none();
        match ServerSocket::adopt(&mut sockets, options, now) {
            Ok(server) => {
                if !now {
                    // Before datagram sockets: if these options are refused, the predecessor goes on,
                    // and must not get several datagrams as one.
                    self.unset.insert(0, Box::new(server.unset()));
                }
                Ok(server)
            }
            Err(e) => {
                let back = labels.into_iter().zip(sockets);
                self.items.extend(back.map(|((number, name), adopted)| Item {
                    number,
                    name,
                    adopted,
                }));
                self.items.sort_by_key(|item| item.number);
                Err(e)
            }
        }
    }

    /// Makes a datagram socket of the one in this place. On failure it stays there.
    fn adopt_datagram(&mut self, index: usize, options: &SocketOptions) -> Result<DatagramSocket> {
        let Item { number, name, adopted } = self.items.remove(index);
        let now = self.channel.is_none();
        match DatagramSocket::adopt(adopted, options, now) {
            Ok(socket) => {
                if !now && options.coalescing {
                    self.unset.push(Box::new(socket.uncoalesced()));
                }
                Ok(socket)
            }
            Err((adopted, e)) => {
                self.items.insert(index, Item { number, name, adopted });
                Err(e)
            }
        }
    }

    /// The one that is bound to an endpoint, of those of a kind, and its place.
    fn bound_to(
        &self,
        endpoint: &Endpoint,
        options: &SocketOptions,
        (kind, operation): (Type, &'static str),
        is_of_kind: impl Fn(&Item) -> bool,
    ) -> Result<Option<(usize, &Item)>> {
        let find = |is_it: &dyn Fn(&Item) -> bool| {
            let mut all = self.items.iter().enumerate();
            all.find(|(_, item)| is_of_kind(item) && is_it(item))
        };
        let (any, any_port) = match &endpoint.0 {
            Target::Inet { host, port } => (*host == Host::Any, *port == Port::Number(0)),
            Target::UnixPath(path) => return Ok(find(&|item| item.is_at(path))),
            Target::UnixAbstract(name) => {
                let name = Address::UnixAbstract(name.as_bytes().to_vec());
                return Ok(find(&|item| item.address().as_ref() == Some(&name)));
            }
        };
        // What has no inherited socket needs no look-up here.
        if find(&|item| matches!(item.address(), Some(Address::Inet(_)))).is_none() {
            return Ok(None);
        }
        let (deadline, cancel) =
            (Deadline::after(options.connect_timeout), options.cancel.as_ref());
        let found = resolve(endpoint, kind, options.family, deadline, cancel, operation)?;
        let at = |wanted: std::net::SocketAddr| {
            let dual = any && wanted.is_ipv6() && options.family == Family::Any;
            find(&|item| (item.adopted.any_port || !any_port) && item.is_bound(wanted, dual))
        };
        let mut wanted = found.into_iter();
        let first = wanted.next();
        if let Some(found) = first.and_then(at) {
            return Ok(Some(found));
        }
        // As in listening and binding: `*` is IPv4 alone on a machine without IPv6.
        let second = wanted.next().filter(|_| any).and_then(at);
        Ok(second.filter(|_| is_ipv6_missing()))
    }
}

impl Item {
    fn socket(&self) -> Borrowed<'_> {
        sys::borrow(&self.adopted.socket)
    }

    fn listens(&self) -> bool {
        matches!(sys::connection_kind(self.socket()), Ok(Some(kind)) if kind.listens)
    }

    fn is_datagram(&self) -> bool {
        sys::is_datagram(self.socket()).is_ok_and(|is| is)
    }

    /// Whether it takes datagrams from anybody.
    fn receives(&self) -> bool {
        let socket = self.socket();
        self.is_datagram() && SockRef::from(&socket).peer_addr().is_err()
    }

    /// Whether it listens as is asked for: for packets, or for streams.
    fn listens_for(&self, packets: bool) -> bool {
        let kind = sys::connection_kind(self.socket());
        matches!(kind, Ok(Some(kind)) if kind.listens && kind.packets == packets)
    }

    fn address(&self) -> Option<Address> {
        SockRef::from(&self.socket()).local_addr().ok().map(|name| sys::to_address(&name))
    }

    fn is_at(&self, path: &Path) -> bool {
        match (self.address(), &self.adopted.file) {
            // The predecessor may have had another directory when it bound a relative path.
            (Some(Address::UnixPath(_)), Some(file)) => file.is_at(path),
            // Which file it was is not told.
            (Some(Address::UnixPath(bound)), None) => {
                unix::is_same(&bound, path) && unix::is_socket(path)
            }
            _ => false,
        }
    }

    fn is_bound(&self, wanted: std::net::SocketAddr, dual: bool) -> bool {
        let socket = self.socket();
        let bound = SockRef::from(&socket).local_addr().ok().and_then(|name| name.as_socket());
        bound.is_some_and(|bound| is_bound_to((wanted, dual), (bound, is_dual(socket, bound))))
    }

    fn wrong_kind(&self) -> Error {
        let (number, name, what) = (self.number, &self.name, sys::describe(self.socket()));
        let what = format!("descriptor {number}, named {name:?}, is {what}");
        Error::new(ErrorKind::WrongState, OPERATION).detail(what)
    }
}

/// Whether a socket is bound to what is wanted; beside each address whether IPv4 comes to it, too,
/// if it is the wildcard of IPv6.
fn is_bound_to(
    (wanted, wanted_dual): (std::net::SocketAddr, bool),
    (bound, dual): (std::net::SocketAddr, bool),
) -> bool {
    use std::net::SocketAddr::V6;
    let same_zone = match (wanted, bound) {
        (V6(wanted), V6(bound)) => wanted.scope_id() == bound.scope_id(),
        _ => true,
    };
    wanted.ip() == bound.ip()
        && (wanted.port() == bound.port() || wanted.port() == 0)
        && same_zone
        && wanted_dual == dual
}

/// The names of descriptors, and what a predecessor tells of them; `None`: there are none for
/// this process. Or what is wrong with the variables.
type Parsed = std::result::Result<Option<(Vec<String>, Option<Note>)>, String>;

/// What the variables say to the process of that number and that inode, if the system tells it.
fn parse(
    [pid, pidfd, fds, names, note]: [Option<&OsStr>; 5],
    (own, inode): (u32, impl FnOnce() -> Option<u64>),
) -> Parsed {
    let text = |name: &str, value: &OsStr| match value.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("{name} is {value:?}, which is not text")),
    };
    let number = |name: &str, value: &OsStr| {
        let text = text(name, value)?;
        text.parse::<u64>().map_err(|_| format!("{name} is {text:?}, which is not a number"))
    };
    let (Some(pid), Some(fds)) = (pid, fds) else {
        return Ok(None);
    };
    if number(LISTEN_PID, pid)? != u64::from(own) {
        return Ok(None);
    }
    if let Some(pidfd) = pidfd {
        let pidfd = number(LISTEN_PIDFDID, pidfd)?;
        if inode().is_some_and(|own| own != pidfd) {
            return Ok(None);
        }
    }
    let count = number(LISTEN_FDS, fds)?;
    // No process has so many; a vector of their names must not take all memory.
    let count = u32::try_from(count).ok().filter(|count| *count <= 1 << 20);
    let count = count.ok_or_else(|| format!("{LISTEN_FDS} is {fds:?}, which is out of range"))?;
    let names = match names {
        None => vec![UNNAMED.to_owned(); count as usize],
        Some(names) => {
            let names = text(LISTEN_FDNAMES, names)?;
            names.split(':').map(str::to_owned).take(count as usize + 1).collect()
        }
    };
    if names.len() != count as usize && count > 0 {
        return Err(format!("{LISTEN_FDNAMES} has not {count} names, as {LISTEN_FDS} says"));
    }
    let note = match note {
        None => None,
        Some(value) => {
            let text = text(HAND_OVER, value)?;
            let note = Note::parse(&text);
            let note = note.ok_or_else(|| format!("{HAND_OVER} is {text:?}, which is no note"))?;
            Some(note).filter(|note| note.ready == FIRST_INHERITED + count)
        }
    };
    let names = if count == 0 { Vec::new() } else { names };
    Ok(Some((names, note)))
}

impl Note {
    /// `5=8:4711,0=any,1=64769:1234:/run/app.sock`
    pub(crate) fn to_text(&self) -> String {
        let (device, inode) = self.channel;
        let mut text = format!("{}={device}:{inode}", self.ready);
        for index in &self.any_ports {
            text += &format!(",{index}={ANY_PORT}");
        }
        for FileNote { index, identity: (device, inode), path } in &self.files {
            text += &format!(",{index}={device}:{inode}:");
            for byte in path.as_os_str().as_encoded_bytes() {
                match byte {
                    b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                        text.push(char::from(*byte));
                    }
                    other => text += &format!("%{other:02x}"),
                }
            }
        }
        text
    }

    fn parse(text: &str) -> Option<Note> {
        let mut parts = text.split(',');
        let identity =
            |device: &str, inode: &str| Some((device.parse().ok()?, inode.parse().ok()?));
        let (ready, channel) = parts.next()?.split_once('=')?;
        let (device, inode) = channel.split_once(':')?;
        let channel = identity(device, inode)?;
        let (mut any_ports, mut files) = (Vec::new(), Vec::new());
        for part in parts {
            let (index, rest) = part.split_once('=')?;
            let index = index.parse().ok()?;
            if rest == ANY_PORT {
                any_ports.push(index);
                continue;
            }
            let (device, rest) = rest.split_once(':')?;
            let (inode, path) = rest.split_once(':')?;
            let identity = identity(device, inode)?;
            files.push(FileNote { index, identity, path: unescape(path)? });
        }
        Some(Note { ready: ready.parse().ok()?, channel, any_ports, files })
    }
}

fn unescape(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            other => other,
        });
    }
    Some(path_of(bytes))
}

#[cfg(unix)]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    OsString::from_vec(bytes).into()
}

#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    OsString::from(String::from_utf8_lossy(&bytes).into_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pid: &str, fds: &str, names: Option<&str>, note: Option<&str>) -> Parsed {
        let values = [Some(pid), None, Some(fds), names, note];
        parse(values.map(|value| value.map(OsStr::new)), (42, || None))
    }

    /// L7: what sd_listen_fds(3) takes, and what it does not.
    #[test]
    fn variables() {
        let names = |names: &[&str]| {
            Ok(Some((names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>(), None)))
        };
        assert_eq!(parsed("42", "2", None, None), names(&["unknown", "unknown"]));
        assert_eq!(parsed("42", "2", Some("a:b"), None), names(&["a", "b"]));
        assert_eq!(parsed("42", "2", Some("a:"), None), names(&["a", ""]));
        assert_eq!(parsed("42", "0", None, None), names(&[]));
        assert_eq!(parsed("42", "0", Some(""), None), names(&[]));
        assert_eq!(parsed("41", "2", None, None), Ok(None));
        assert_eq!(parsed("41", "garbage", None, Some("garbage")), Ok(None));
        assert_eq!(parse([None; 5], (42, || None)), Ok(None));
        let of = |pidfd: &'static str, own| {
            let values = [Some("42"), Some(pidfd), Some("0"), None, None];
            parse(values.map(|value| value.map(OsStr::new)), (42, || own))
        };
        assert_eq!(of("7", Some(7)), names(&[]));
        assert_eq!(of("7", None), names(&[]));
        assert_eq!(of("7", Some(8)), Ok(None));
        assert!(of("seven", None).unwrap_err().contains("LISTEN_PIDFDID is \"seven\""));
        for (pid, fds, names, note, word) in [
            ("me", "1", None, None, "LISTEN_PID is \"me\""),
            ("42", "-1", None, None, "LISTEN_FDS is \"-1\""),
            ("42", "", None, None, "LISTEN_FDS is \"\""),
            ("42", "4000000000", None, None, "out of range"),
            ("42", "2", Some("a"), None, "not 2 names"),
            ("42", "2", Some("a:b:c"), None, "not 2 names"),
            ("42", "1", None, Some("4"), "KEEPSOCK_HAND_OVER"),
            ("42", "1", None, Some("4=1:2,0=1:2"), "KEEPSOCK_HAND_OVER"),
            ("42", "1", None, Some("4=1:2,0=1:2:%f"), "KEEPSOCK_HAND_OVER"),
        ] {
            let why = parsed(pid, fds, names, note).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }

    /// L7: which files a successor owns, whatever their names.
    #[test]
    #[cfg(unix)]
    fn notes() {
        use std::os::unix::ffi::OsStrExt;
        let file = |index, path: &[u8]| FileNote {
            index,
            identity: (7, u64::MAX),
            path: PathBuf::from(OsStr::from_bytes(path)),
        };
        let files = vec![file(0, b"/run/app.sock"), file(12, b"/a,b=c:d%e \xff\n")];
        for files in [vec![], files] {
            for any_ports in [vec![], vec![1, 7]] {
                let note = Note { ready: 3, channel: (8, 4711), any_ports, files: files.clone() };
                assert_eq!(Note::parse(&note.to_text()), Some(note));
            }
        }
        let files = vec![file(0, b"/run/app.sock")];
        let note = Note { ready: 5, channel: (8, 4711), any_ports: vec![1], files };
        assert_eq!(note.to_text(), format!("5=8:4711,1=any,0=7:{}:/run/app.sock", u64::MAX));
    }

    /// L7: an address is not another one that merely has its port.
    #[test]
    fn addresses() {
        let at = |text: &str, dual| (text.parse().unwrap(), dual);
        for (wanted, bound, is) in [
            (at("127.0.0.1:80", false), at("127.0.0.1:80", false), true),
            (at("127.0.0.1:0", false), at("127.0.0.1:80", false), true),
            (at("127.0.0.1:80", false), at("127.0.0.1:81", false), false),
            (at("127.0.0.1:80", false), at("0.0.0.0:80", false), false),
            (at("0.0.0.0:80", false), at("0.0.0.0:80", false), true),
            (at("0.0.0.0:80", false), at("[::]:80", true), false),
            (at("[::]:80", true), at("[::]:80", true), true),
            (at("[::]:80", true), at("[::]:80", false), false),
            (at("[::]:80", false), at("[::]:80", false), true),
            (at("[::]:80", false), at("[::]:80", true), false),
            (at("[::1]:80", false), at("[::1]:80", false), true),
            (at("[fe80::1%2]:80", false), at("[fe80::1%3]:80", false), false),
        ] {
            assert_eq!(is_bound_to(wanted, bound), is, "{wanted:?} {bound:?}");
        }
    }
}
