/*
 * keep_served N - keepsock: a datagram service that receives N batches of 16 datagrams
 *
 * The handler of the last datagram of a batch sends the next batch in plain C with one call, so the service
 * finds all of it in its queue.
 */
#define _GNU_SOURCE
#include "keep_must.h"
#include <semaphore.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 16, SIZE = 64, GIVE_UP_AFTER_SECONDS = 120 };

static long batches;
static unsigned received;
static sem_t done;
static int fd;
static struct mmsghdr outgoing[BATCH];
static struct iovec piece[BATCH];
static char bytes[SIZE];
static struct sockaddr_storage own;

static void send_batch(void)
{
    if (sendmmsg(fd, outgoing, BATCH, MSG_NOSIGNAL) != BATCH) {
        perror("sendmmsg");
        exit(1);
    }
}

static void receive(keepsock_datagram *datagram, const keepsock_datagram_info *info, const void *buf, size_t len,
                    void *user)
{
    (void)datagram, (void)user;
    if (info->truncated || len != SIZE || memcmp(buf, bytes, SIZE) != 0)
        exit(1);
    if (++received % BATCH != 0)
        return;
    if (--batches > 0)
        send_batch();
    else
        sem_post(&done);
}

int main(int argc, char **argv)
{
    keepsock_datagram *datagram = NULL;
    keepsock_datagram_service *service = NULL;
    keepsock_error *error = NULL;
    socklen_t len = sizeof own;

    if (argc != 2) {
        fprintf(stderr, "usage: %s N\n", argv[0]);
        return 2;
    }
    alarm(GIVE_UP_AFTER_SECONDS);
    batches = strtol(argv[1], NULL, 10);
    sem_init(&done, 0, 0);
    memset(bytes, 'x', sizeof bytes);
    must(keepsock_datagram_bind("127.0.0.1:0", NULL, &datagram, &error), error);
    must(keepsock_datagram_fd(datagram, &fd, &error), error);
    getsockname(fd, (struct sockaddr *)&own, &len);
    for (unsigned i = 0; i < BATCH; i++) {
        piece[i] = (struct iovec){.iov_base = bytes, .iov_len = SIZE};
        outgoing[i].msg_hdr =
            (struct msghdr){.msg_name = &own, .msg_namelen = len, .msg_iov = &piece[i], .msg_iovlen = 1};
    }
    send_batch();
    must(keepsock_datagram_serve(datagram, NULL, receive, NULL, &service, &error), error);
    while (sem_wait(&done) != 0) {
    }
    keepsock_datagram_service_free(service);
    keepsock_datagram_free(datagram);
    return 0;
}
