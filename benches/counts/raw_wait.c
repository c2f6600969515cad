/* raw_wait - plain C: a receive that waits for its datagram, with SO_RCVTIMEO or with poll and an eventfd */
#define _GNU_SOURCE
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include "wait.h"

static int asking, event = -1;

static void open_socket(const struct sockaddr_in *to, int token)
{
    struct timeval timeout = {.tv_sec = TIMEOUT_S};

    asking = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    check(connect(asking, (const struct sockaddr *)to, sizeof *to) == 0, "connect");
    check(setsockopt(asking, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0, "SO_RCVTIMEO");
    if (token)
        event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static void ask(const char *question, size_t len)
{
    check(send(asking, question, len, MSG_NOSIGNAL) == (ssize_t)len, "send");
}

static size_t answer(char *buf, size_t cap)
{
    struct pollfd both[2] = {{.fd = asking, .events = POLLIN}, {.fd = event, .events = POLLIN}};
    struct sockaddr_storage from;
    socklen_t from_len = sizeof from;

    if (event >= 0)
        check(poll(both, 2, TIMEOUT_S * 1000) > 0, "poll");
    ssize_t n = recvfrom(asking, buf, cap, 0, (struct sockaddr *)&from, &from_len);

    check(n >= 0, "recvfrom");
    return (size_t)n;
}
