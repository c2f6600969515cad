/* The calls of the kernel that an emulator may lack. Prints one line for each: "NAME ok", or "NAME" and
 * what is wrong. It uses plain C only, so a line that is not ok is no defect of keepsock. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef TCP_SAVE_SYN
#define TCP_SAVE_SYN 27
#define TCP_SAVED_SYN 28
#endif
#ifndef SO_MEMINFO
#define SO_MEMINFO 55
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif
#ifndef IP_RECVERR
#define IP_RECVERR 11
#endif
#ifndef SO_MAX_PACING_RATE
#define SO_MAX_PACING_RATE 47
#endif
#ifndef IPV6_FLOWLABEL_MGR
#define IPV6_FLOWLABEL_MGR 32
#endif

static const char *name;
static void ok(void) { printf("%s ok\n", name); }
static void wrong(const char *what) { printf("%s %s\n", name, what); }
static void failed(const char *call) { printf("%s %s: %s\n", name, call, strerror(errno)); }

/* A TCP connection over loopback: listener, client, accepted. */
static void connected(int fd[3], int save_syn) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    fd[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (save_syn) setsockopt(fd[0], IPPROTO_TCP, TCP_SAVE_SYN, &save_syn, sizeof save_syn);
    if (bind(fd[0], (void *)&a, n) || listen(fd[0], 4) || getsockname(fd[0], (void *)&a, &n)) failed("listen");
    fd[1] = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd[1], (void *)&a, n)) failed("connect");
    fd[2] = accept(fd[0], NULL, NULL);
}

static int udp(struct sockaddr_in *a) {
    socklen_t n = sizeof *a;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    memset(a, 0, sizeof *a);
    a->sin_family = AF_INET;
    a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (void *)a, n) || getsockname(fd, (void *)a, &n)) failed("bind");
    return fd;
}

static void set(int fd, int level, int option) {
    int one = 1, got = 0;
    socklen_t n = sizeof got;
    if (setsockopt(fd, level, option, &one, sizeof one)) failed("setsockopt");
    else if (getsockopt(fd, level, option, &got, &n)) failed("getsockopt");
    else if (n != sizeof got || got != 1) wrong("getsockopt returns another value");
    else ok();
}

/* The control message that one datagram of the length `len` has with an option on. */
static void control(int level, int option, int kind, size_t len) {
    struct sockaddr_in a;
    int fd = udp(&a), one = 1;
    union { char bytes[512]; struct cmsghdr align; } room;
    char byte;
    struct iovec part = {&byte, 1};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &room, .msg_controllen = sizeof room};
    struct cmsghdr *c;
    if (setsockopt(fd, level, option, &one, sizeof one)) { failed("setsockopt"); goto end; }
    sendto(fd, "x", 1, 0, (void *)&a, sizeof a);
    if (recvmsg(fd, &m, 0) != 1) { failed("recvmsg"); goto end; }
    for (c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == level && c->cmsg_type == kind) break;
    if (!c) wrong("recvmsg returns no such control message");
    else if (c->cmsg_len < CMSG_LEN(len)) wrong("the control message is too short");
    else if (kind == IP_PKTINFO && ((struct in_pktinfo *)CMSG_DATA(c))->ipi_ifindex != (int)if_nametoindex("lo"))
        wrong("the interface of IP_PKTINFO is not that of loopback");
    else if (kind == IP_TTL && *(int *)CMSG_DATA(c) != 64) wrong("the TTL is not 64");
    else ok();
end:
    close(fd);
}

static void tcp_info(void) {
    int fd[3];
    struct tcp_info info;
    socklen_t n = sizeof info;
    connected(fd, 0);
    memset(&info, 0, sizeof info);
    if (getsockopt(fd[1], IPPROTO_TCP, TCP_INFO, &info, &n)) failed("getsockopt");
    else if (n < 104) printf("%s getsockopt returns %u bytes\n", name, (unsigned)n);
    else if (info.tcpi_snd_mss < 500 || info.tcpi_snd_mss > 65536) wrong("the MSS has the wrong byte order");
    else ok();
}

/* The state is the first byte of struct tcp_info. */
static void tcp_state(void) {
    int fd[3];
    unsigned char info[104] = {0};
    socklen_t n = sizeof info;
    connected(fd, 0);
    if (getsockopt(fd[1], IPPROTO_TCP, TCP_INFO, info, &n)) failed("getsockopt");
    else if (info[0] != TCP_ESTABLISHED) wrong("the first byte of TCP_INFO is not the state");
    else ok();
}

static void saved_syn(void) {
    int fd[3];
    char syn[256];
    socklen_t n = sizeof syn;
    connected(fd, 1);
    if (getsockopt(fd[2], IPPROTO_TCP, TCP_SAVED_SYN, syn, &n)) failed("getsockopt");
    else if (n < 40) printf("%s getsockopt returns %u bytes\n", name, (unsigned)n);
    else ok();
}

static void capture(void) {
    /* SOF_TIMESTAMPING_RX_SOFTWARE and SOF_TIMESTAMPING_SOFTWARE of linux/net_tstamp.h. */
    int fd = socket(AF_PACKET, SOCK_DGRAM, htons(0x0800)), times = 1 << 3 | 1 << 4;
    struct sock_filter all = {BPF_RET | BPF_K, 0, 0, 65535};
    struct sock_fprog program = {1, &all};
    struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = htons(0x0800), .sll_ifindex = (int)if_nametoindex("lo")};
    if (fd < 0) failed("socket");
    else if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &times, sizeof times)) failed("SO_TIMESTAMPING");
    else if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program)) failed("SO_ATTACH_FILTER");
    else if (bind(fd, (void *)&a, sizeof a)) failed("bind");
    else ok();
}

static void seccomp_filter(void) {
    struct sock_filter allow = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
    struct sock_fprog program = {1, &allow};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) failed("PR_SET_NO_NEW_PRIVS");
    else if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) failed("seccomp");
    else ok();
}

/* Whether a filter of the system call getsockopt(2) acts on getsockopt(). glibc for 32-bit x86 calls
 * socketcall(2) instead, whose arguments a filter cannot read. */
static void socket_calls(void) {
    struct sock_filter code[] = {
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, 0},
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_getsockopt},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EDOM},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
    };
    struct sock_fprog program = {4, code};
    int fd = socket(AF_INET, SOCK_STREAM, 0), value;
    socklen_t n = sizeof value;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) failed("PR_SET_NO_NEW_PRIVS");
    else if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) failed("seccomp");
    else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &n) == 0 || errno != EDOM)
        wrong("getsockopt() makes another system call, which a filter cannot distinguish");
    else ok();
}

/* A C library whose time_t has 32 bits has two functions for each time. */
static void one_clock(void) {
    if (sizeof(time_t) < 8) wrong("time_t has 32 bits, so a program that replaces clock_gettime() replaces one of two");
    else ok();
}

static void multicast(void) {
    struct sockaddr_in a;
    int fd = udp(&a);
    struct group_req r = {.gr_interface = if_nametoindex("lo")};
    struct sockaddr_in *g = (void *)&r.gr_group;
    g->sin_family = AF_INET;
    g->sin_addr.s_addr = inet_addr("239.1.2.3");
    if (setsockopt(fd, IPPROTO_IP, MCAST_JOIN_GROUP, &r, sizeof r)) failed("MCAST_JOIN_GROUP");
    else ok();
}

static void meminfo(void) {
    struct sockaddr_in a;
    int fd = udp(&a);
    unsigned info[9] = {0};
    socklen_t n = sizeof info;
    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &n)) failed("getsockopt");
    else if (n != sizeof info) wrong("getsockopt returns another length");
    else ok();
}

static void path_mtu(void) {
    struct sockaddr_in a;
    int to = udp(&a), fd = socket(AF_INET, SOCK_DGRAM, 0), mtu = 0;
    socklen_t n = sizeof mtu;
    (void)to;
    if (connect(fd, (void *)&a, sizeof a)) failed("connect");
    else if (getsockopt(fd, IPPROTO_IP, IP_MTU, &mtu, &n)) failed("getsockopt");
    else ok();
}

static void bind_device(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2)) failed("setsockopt");
    else {
        char got[IFNAMSIZ] = "";
        socklen_t n = sizeof got;
        if (getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, got, &n)) failed("getsockopt");
        else ok();
    }
}

/* Requests a flow label for the destination ::1 (struct in6_flowlabel_req of linux/in6.h: IPV6_FL_A_GET,
 * IPV6_FL_F_CREATE, IPV6_FL_S_EXCL). */
static void flow_label(void) {
    unsigned char request[32] = {0};
    unsigned short create = 1;
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    request[15] = 1;
    request[19] = 77;
    request[21] = 1;
    memcpy(request + 22, &create, sizeof create);
    if (setsockopt(fd, IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, request, sizeof request)) failed("setsockopt");
    else ok();
}

static void congestion(void) {
    char got[16] = "";
    socklen_t n = sizeof got;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4)) failed("setsockopt");
    else if (getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, got, &n)) failed("getsockopt");
    else if (strcmp(got, "reno")) wrong("another algorithm");
    else ok();
}

/* One send of ten bytes as datagrams of five (UDP_SEGMENT), which UDP_GRO reports as one of ten. */
static void segments(void) {
    struct sockaddr_in a;
    int to = udp(&a), fd = socket(AF_INET, SOCK_DGRAM, 0), one = 1, size = 0;
    unsigned short segment = 5;
    union { char bytes[512]; struct cmsghdr align; } room;
    char bytes[64] = "0123456789";
    struct iovec part = {bytes, 10};
    struct msghdr m = {.msg_name = &a, .msg_namelen = sizeof a, .msg_iov = &part, .msg_iovlen = 1,
        .msg_control = &room, .msg_controllen = CMSG_SPACE(sizeof segment)};
    struct cmsghdr *c;
    memset(&room, 0, sizeof room);
    c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = IPPROTO_UDP;
    c->cmsg_type = UDP_SEGMENT;
    c->cmsg_len = CMSG_LEN(sizeof segment);
    memcpy(CMSG_DATA(c), &segment, sizeof segment);
    if (setsockopt(to, IPPROTO_UDP, UDP_GRO, &one, sizeof one)) { failed("UDP_GRO"); return; }
    if (sendmsg(fd, &m, 0) != 10) { failed("sendmsg"); return; }
    part.iov_len = sizeof bytes;
    m.msg_controllen = sizeof room;
    if (recvmsg(to, &m, 0) < 5) { failed("recvmsg"); return; }
    for (c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) memcpy(&size, CMSG_DATA(c), sizeof size);
    if (size != 5) wrong("the length of the segments is not 5");
    else ok();
}

/* A connected socket whose peer has closed gets ICMP, whose report is in the error queue. */
static void error_queue(void) {
    struct sockaddr_in a;
    int to = udp(&a), fd = socket(AF_INET, SOCK_DGRAM, 0), one = 1;
    union { char bytes[512]; struct cmsghdr align; } room;
    char byte;
    struct iovec part = {&byte, 1};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &room, .msg_controllen = sizeof room};
    struct pollfd p = {.fd = fd};
    close(to);
    if (setsockopt(fd, IPPROTO_IP, IP_RECVERR, &one, sizeof one)) { failed("IP_RECVERR"); return; }
    sendto(fd, "x", 1, 0, (void *)&a, sizeof a);
    poll(&p, 1, 2000);
    if (recvmsg(fd, &m, MSG_ERRQUEUE) < 0) failed("recvmsg");
    else {
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        /* struct sock_extended_err begins with the error number. */
        unsigned number = 0;
        if (c) memcpy(&number, CMSG_DATA(c), sizeof number);
        if (!c) wrong("no control message");
        else if (c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_RECVERR || number != ECONNREFUSED)
            wrong("the report is not ECONNREFUSED");
        else ok();
    }
}

/* Three descriptors in room for one: the kernel passes one and sets MSG_CTRUNC. */
static void passed_descriptors(void) {
    int pair[2], i;
    union { char bytes[CMSG_SPACE(3 * sizeof(int))]; struct cmsghdr align; } room;
    char byte = 1;
    struct iovec part = {&byte, 1};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &room, .msg_controllen = sizeof room};
    struct cmsghdr *c;
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    memset(&room, 0, sizeof room);
    c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET; c->cmsg_type = SCM_RIGHTS; c->cmsg_len = CMSG_LEN(3 * sizeof(int));
    for (i = 0; i < 3; i++) memcpy(CMSG_DATA(c) + i * sizeof(int), &pair[0], sizeof(int));
    if (sendmsg(pair[0], &m, 0) != 1) { failed("sendmsg"); return; }
    m.msg_controllen = CMSG_LEN(sizeof(int));
    if (recvmsg(pair[1], &m, MSG_CMSG_CLOEXEC) != 1) { failed("recvmsg"); return; }
    c = CMSG_FIRSTHDR(&m);
    if (!c || c->cmsg_len != CMSG_LEN(sizeof(int))) wrong("recvmsg returns no descriptor in room for one");
    else if (!(m.msg_flags & MSG_CTRUNC)) wrong("MSG_CTRUNC is not set");
    else ok();
}

static void pass_credentials(void) {
    int pair[2], one = 1;
    union { char bytes[256]; struct cmsghdr align; } room;
    char byte;
    struct iovec part = {&byte, 1};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &room, .msg_controllen = sizeof room};
    struct cmsghdr *c;
    struct ucred u;
    socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
    if (setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof one)) { failed("SO_PASSCRED"); return; }
    send(pair[0], "x", 1, 0);
    if (recvmsg(pair[1], &m, 0) != 1) { failed("recvmsg"); return; }
    c = CMSG_FIRSTHDR(&m);
    if (!c || c->cmsg_type != SCM_CREDENTIALS) { wrong("recvmsg returns no credentials"); return; }
    memcpy(&u, CMSG_DATA(c), sizeof u);
    if (u.pid != getpid()) wrong("another process ID");
    else ok();
}

static void wipe_on_fork(void) {
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int status = 0;
    if (madvise(page, 4096, MADV_WIPEONFORK)) { failed("madvise"); return; }
    *page = 1;
    if (fork() == 0) _exit(*page);
    wait(&status);
    if (status) wrong("the child has the value of its parent");
    else ok();
}

static void clone_child(void) {
    int status = 0;
#ifdef __s390__
    /* clone(2): the stack is the first argument. */
    long child = syscall(SYS_clone, 0, SIGCHLD, 0, 0, 0);
#else
    long child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
#endif
    if (child == 0) _exit(3);
    if (child < 0) failed("clone");
    else if (waitpid((pid_t)child, &status, 0) != child || WEXITSTATUS(status) != 3) wrong("the child did not run");
    else ok();
}

static void *wait_for_ever(void *unused) { (void)unused; pause(); return NULL; }
static void *end(void *unused) { (void)unused; return NULL; }

/* A child of a program with threads starts and joins threads of its own. */
static void threads_after_fork(void) {
    pthread_t thread;
    int status = 0, i;
    pid_t child;
    for (i = 0; i < 4; i++) pthread_create(&thread, NULL, wait_for_ever, NULL);
    child = fork();
    if (child == 0) {
        alarm(5);
        for (i = 0; i < 20; i++)
            if (pthread_create(&thread, NULL, end, NULL) || pthread_join(thread, NULL)) _exit(1);
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child || status) wrong("a thread of the child did not end");
    else ok();
}

/* Whether the kernel's files about the process describe this program. */
static void proc_files(void) {
    char text[512] = "", path[512] = "";
    unsigned long start = 0;
    ssize_t n;
    int field = 0;
    char *p;
    FILE *f = fopen("/proc/self/stat", "r");
    if (!f || !fgets(text, sizeof text, f)) { failed("stat"); return; }
    for (p = strrchr(text, ')'); p && *p; p++)
        if (*p == ' ' && ++field == 46) start = strtoul(p, NULL, 10);
    n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n < 0 || strstr(path, "qemu")) wrong("/proc/self/exe is the emulator");
    else if (!start) wrong("/proc/self/stat has no address of the arguments");
    else {
        /* proc(5): the reading thread makes the system call read(2). */
        char *end;
        f = fopen("/proc/thread-self/syscall", "r");
        if (!f || !fgets(text, sizeof text, f)) wrong("no file `syscall`");
        else if (strtol(text, &end, 10) != SYS_read) wrong("the file `syscall` has calls of the emulator");
        else ok();
    }
}

static void memory_limit(void) {
    struct rlimit limit = {1 << 28, RLIM_INFINITY}, got;
    if (setrlimit(RLIMIT_AS, &limit) || getrlimit(RLIMIT_AS, &got)) failed("setrlimit");
    else if (mmap(NULL, 1 << 29, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != MAP_FAILED)
        wrong("memory beyond RLIMIT_AS");
    else ok();
}

static void option(int type, int protocol, int level, int which) { set(socket(AF_INET, type, protocol), level, which); }
static void timestamp(void) { control(SOL_SOCKET, SO_TIMESTAMPNS, SO_TIMESTAMPNS, 8); }
static void packet_info(void) { control(IPPROTO_IP, IP_PKTINFO, IP_PKTINFO, sizeof(struct in_pktinfo)); }
static void received_ttl(void) { control(IPPROTO_IP, IP_RECVTTL, IP_TTL, sizeof(int)); }
static void received_tos(void) { control(IPPROTO_IP, IP_RECVTOS, IP_TOS, 1); }
static void gro(void) { option(SOCK_DGRAM, 0, IPPROTO_UDP, UDP_GRO); }
static void incoming_cpu(void) { option(SOCK_STREAM, 0, SOL_SOCKET, SO_REUSEPORT); }
static void fast_open(void) { option(SOCK_STREAM, 0, IPPROTO_TCP, 30); }
static void mptcp(void) { if (socket(AF_INET, SOCK_STREAM, 262) < 0) failed("socket"); else ok(); }
static void user_timeout(void) { option(SOCK_STREAM, 0, IPPROTO_TCP, TCP_USER_TIMEOUT); }
static void mark(void) { option(SOCK_STREAM, 0, SOL_SOCKET, SO_MARK); }
static void pacing_rate(void) { option(SOCK_STREAM, 0, SOL_SOCKET, SO_MAX_PACING_RATE); }
static void bind_no_port(void) { option(SOCK_STREAM, 0, IPPROTO_IP, 24); }

int main(void) {
    static const struct { const char *name; void (*run)(void); } all[] = {
        {"tcp_info", tcp_info}, {"tcp_state", tcp_state}, {"saved_syn", saved_syn}, {"capture", capture}, {"seccomp", seccomp_filter},
        {"socket_calls", socket_calls}, {"one_clock", one_clock}, {"multicast", multicast}, {"meminfo", meminfo}, {"path_mtu", path_mtu}, {"bind_device", bind_device},
        {"error_queue", error_queue}, {"passed_descriptors", passed_descriptors},
        {"pass_credentials", pass_credentials}, {"wipe_on_fork", wipe_on_fork}, {"clone", clone_child},
        {"proc", proc_files}, {"memory_limit", memory_limit}, {"timestamp", timestamp},
        {"packet_info", packet_info}, {"received_ttl", received_ttl}, {"received_tos", received_tos},
        {"gro", gro}, {"reuse_port", incoming_cpu}, {"fast_open", fast_open}, {"mptcp", mptcp},
        {"user_timeout", user_timeout}, {"bind_no_port", bind_no_port},
        {"mark", mark}, {"pacing_rate", pacing_rate}, {"flow_label", flow_label},
        {"congestion", congestion}, {"segments", segments}, {"threads_after_fork", threads_after_fork},
    };
    size_t i;
    for (i = 0; i < sizeof all / sizeof *all; i++) {
        /* A process for each: some calls change the process, and an emulator may crash. */
        int status = 0;
        pid_t child;
        name = all[i].name;
        fflush(stdout);
        child = fork();
        if (child == 0) {
            alarm(10);
            all[i].run();
            fflush(stdout);
            _exit(0);
        }
        if (waitpid(child, &status, 0) != child || status != 0) wrong("the process did not end normally");
    }
    return 0;
}
