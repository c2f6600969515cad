/* raw_threads CONNECTIONS READ_TIMEOUT_MS - plain C: a thread for each connection */
#define _GNU_SOURCE
#include "raw.h"
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>

static atomic_long left;
static sem_t all_done;

static void *attend(void *arg)
{
    int fd = (int)(intptr_t)arg;

    echo_until_end(fd);
    close(fd);
    if (atomic_fetch_sub(&left, 1) == 1)
        sem_post(&all_done);
    return NULL;
}

int main(int argc, char **argv)
{
    must(argc == 3, "usage: raw_threads CONNECTIONS READ_TIMEOUT_MS");
    long connections = strtol(argv[1], NULL, 10), timeout = strtol(argv[2], NULL, 10);
    pthread_attr_t detached;

    alarm(GIVE_UP_AFTER_S);
    left = connections;
    sem_init(&all_done, 0, 0);
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);

    int listener = listen_loopback();
    while (connections-- > 0) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        pthread_t thread;

        must(fd >= 0, "accept4");
        if (timeout > 0)
            set_timeout(fd, SO_RCVTIMEO, timeout);
        must(pthread_create(&thread, &detached, attend, (void *)(intptr_t)fd) == 0, "pthread_create");
    }
    sem_wait(&all_done);
    return 0;
}
