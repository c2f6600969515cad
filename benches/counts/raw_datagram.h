/* The common part of the plain C UDP programs: two sockets on loopback, and batch receives. */
#ifndef RAW_DATAGRAM_H
#define RAW_DATAGRAM_H
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include "datagram.h"

static int sender, receiver;
static struct sockaddr_in to;

static struct mmsghdr incoming[BATCH];
static struct iovec into[BATCH];
static struct sockaddr_storage from[BATCH];

static inline void must(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static int socket_on_loopback(struct sockaddr_in *address)
{
    socklen_t len = sizeof *address;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    must(fd >= 0, "socket");
    must(bind(fd, (struct sockaddr *)address, len) == 0, "bind");
    must(getsockname(fd, (struct sockaddr *)address, &len) == 0, "getsockname");
    return fd;
}

static void open_two(int connected)
{
    struct sockaddr_in own;

    receiver = socket_on_loopback(&to);
    sender = socket_on_loopback(&own);
    if (connected)
        must(connect(sender, (struct sockaddr *)&to, sizeof to) == 0, "connect");
    for (unsigned i = 0; i < BATCH; i++) {
        into[i] = (struct iovec){.iov_base = got[i], .iov_len = sizeof got[i]};
        incoming[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_iov = &into[i], .msg_iovlen = 1};
    }
}

/* Receives a batch with recvmmsg, in one call if all datagrams have arrived. */
static inline void receive_many(void)
{
    for (unsigned done = 0; done < BATCH;) {
        for (unsigned i = done; i < BATCH; i++)
            incoming[i].msg_hdr.msg_namelen = sizeof from[i];
        int n = recvmmsg(receiver, incoming + done, BATCH - done, MSG_WAITFORONE, NULL);

        must(n > 0, "recvmmsg");
        for (; n > 0; n--, done++)
            arrived(done, got[done], incoming[done].msg_len);
    }
}

/* Sends a batch from `count` buffers with one call, which the kernel splits (UDP_SEGMENT of udp(7)). */
static inline void send_as_one(const struct iovec *parts, size_t count)
{
    union {
        char bytes[CMSG_SPACE(sizeof(uint16_t))];
        struct cmsghdr aligned;
    } control;
    struct msghdr message = {
        .msg_iov = (struct iovec *)parts, .msg_iovlen = count,
        .msg_control = control.bytes, .msg_controllen = sizeof control.bytes,
    };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    uint16_t size = SIZE;

    header->cmsg_level = IPPROTO_UDP;
    header->cmsg_type = UDP_SEGMENT;
    header->cmsg_len = CMSG_LEN(sizeof size);
    memcpy(CMSG_DATA(header), &size, sizeof size);
    must(sendmsg(sender, &message, MSG_NOSIGNAL) == BATCH * SIZE, "sendmsg");
}
#endif
