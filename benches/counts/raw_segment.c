/* raw_segment - plain C: UDP segmentation offload (equal lengths only), and recvmmsg */
#define _GNU_SOURCE
#include "raw_datagram.h"

static void open_sockets(void)
{
    open_two(1);
}

static void exchange(void)
{
    const struct iovec whole = {.iov_base = sent, .iov_len = BATCH * SIZE};

    send_as_one(&whole, 1);
    receive_many();
}
