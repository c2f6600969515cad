/* The common part of the plain C programs: options, a listener on a free loopback port, the echo. */
#ifndef RAW_H
#define RAW_H
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* A run that hangs must end. */
enum { GIVE_UP_AFTER_S = 120 };

static inline void must(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static inline void set(int fd, int level, int option, int value)
{
    must(setsockopt(fd, level, option, &value, sizeof value) == 0, "setsockopt");
}

/* keepsock's defaults. On Linux every accepted socket inherits them from the listener. */
static inline void set_options(int fd)
{
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 45);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 15);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, 5);
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

static inline int listen_loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    must(fd >= 0, "socket");
    /* Huge pages would show memory in steps of 2 MiB. */
    must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "prctl");
    set_options(fd);
    must(bind(fd, (struct sockaddr *)&address, sizeof address) == 0, "bind");
    must(listen(fd, 1024) == 0, "listen");
    must(getsockname(fd, (struct sockaddr *)&address, &length) == 0, "getsockname");
    printf("port %u\n", (unsigned)ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static inline void set_timeout(int fd, int option, long ms)
{
    struct timeval timeout = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

    must(setsockopt(fd, SOL_SOCKET, option, &timeout, sizeof timeout) == 0, "timeout");
}

static inline void echo_until_end(int fd)
{
    char buf[256];
    ssize_t got;

    while ((got = recv(fd, buf, sizeof buf, 0)) > 0)
        must(send(fd, buf, (size_t)got, MSG_NOSIGNAL) == got, "send");
    must(got == 0, "recv");
}
#endif
