/* raw_coalesce - plain C: UDP segmentation offload (equal lengths only), and receive coalescing (UDP_GRO of udp(7)) */
#define _GNU_SOURCE
#include "raw_datagram.h"

static char all[1 << 16];

static void open_sockets(void)
{
    int on = 1;

    open_two(1);
    must(setsockopt(receiver, IPPROTO_UDP, UDP_GRO, &on, sizeof on) == 0, "UDP_GRO");
}

/* The length of each coalesced datagram. */
static size_t size_of_each(struct msghdr *message, size_t len)
{
    int size = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO)
            memcpy(&size, CMSG_DATA(c), sizeof size);
    return size > 0 ? (size_t)size : len;
}

static void exchange(void)
{
    const struct iovec whole = {.iov_base = sent, .iov_len = BATCH * SIZE};

    send_as_one(&whole, 1);
    for (unsigned done = 0; done < BATCH;) {
        union {
            char bytes[CMSG_SPACE(sizeof(int))];
            struct cmsghdr aligned;
        } control;
        struct iovec room = {.iov_base = all, .iov_len = sizeof all};
        struct msghdr message = {
            .msg_name = from, .msg_namelen = sizeof from[0],
            .msg_iov = &room, .msg_iovlen = 1,
            .msg_control = control.bytes, .msg_controllen = sizeof control.bytes,
        };
        ssize_t n = recvmsg(receiver, &message, 0);

        must(n > 0, "recvmsg");
        size_t left = (size_t)n, each = size_of_each(&message, left);
        for (char *at = all; left > 0; done++) {
            size_t len = left < each ? left : each;

            arrived(done, at, len);
            at += len;
            left -= len;
        }
    }
}
