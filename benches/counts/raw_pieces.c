/* raw_pieces - plain C: sends 64 separate buffers with UDP segmentation offload, receives with recvmmsg */
#define _GNU_SOURCE
#include "raw_datagram.h"

static struct iovec pieces[BATCH];

static void open_sockets(void)
{
    open_two(1);
    for (unsigned i = 0; i < BATCH; i++)
        pieces[i] = (struct iovec){.iov_base = data[i], .iov_len = length[i]};
}

static void exchange(void)
{
    send_as_one(pieces, BATCH);
    receive_many();
}
