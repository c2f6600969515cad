/* raw_sendmmsg - plain C: UDP by sendmmsg and recvmmsg */
#define _GNU_SOURCE
#include "raw_datagram.h"

static struct mmsghdr outgoing[BATCH];
static struct iovec pieces[BATCH];

static void open_sockets(void)
{
    open_two(1);
    for (unsigned i = 0; i < BATCH; i++) {
        pieces[i] = (struct iovec){.iov_base = data[i], .iov_len = length[i]};
        outgoing[i].msg_hdr = (struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1};
    }
}

static void exchange(void)
{
    must(sendmmsg(sender, outgoing, BATCH, MSG_NOSIGNAL) == BATCH, "sendmmsg");
    receive_many();
}
