/*
 * Messages and FIFOs of them. Invariant: a queue's `tail` points to the NULL that ends its list, or is NULL itself
 * while the queue is empty, so that an empty queue may be copied or zeroed.
 */
#include "xc_queue.h"

#include "xc_pickle.h"

xc_msg *
xc_msg_new(uint8_t code, uint32_t chan, size_t size)
{
    if (size > SIZE_MAX / 2) {
        return NULL;
    }
    size_t spare = size >= XC_ALIGNED_MIN ? XC_PICKLE_ALIGN : 0;
    xc_msg *msg = xc_alloc(sizeof(*msg) + spare + size);
    if (msg != NULL) {
        *msg = (xc_msg){
            .code = code, .coerce = XC_COERCE_DEFAULT, .chan = chan, .size = size, .data = (unsigned char *)(msg + 1)};
        msg->data += spare > 0 ? xc_pickle_align((uintptr_t)msg->data) - (uintptr_t)msg->data : 0;
    }
    return msg;
}

xc_msg *
xc_msg_new_or_lost(uint8_t code, uint32_t chan, size_t size)
{
    xc_msg *msg = xc_msg_new(code, chan, size);
    if (msg == NULL && (msg = xc_msg_new(code, chan, 0)) != NULL) {
        msg->lost = true;
        msg->size = size;
        msg->data = NULL;
    }
    return msg;
}

void
xc_msg_free(xc_msg *msg)
{
    if (msg != NULL) {
        xc_free(msg->carried);
        xc_free(msg->ids);
        xc_free(msg);
    }
}

void
xc_queue_push(xc_queue *queue, xc_msg *msg)
{
    XC_ASSERT(msg->next == NULL && queue->tail != &msg->next); /* it is in no queue */
    XC_ASSERT(queue->tail == NULL || *queue->tail == NULL);
    msg->next = NULL;
    if (queue->tail == NULL) {
        queue->head = msg;
    }
    else {
        *queue->tail = msg;
    }
    queue->tail = &msg->next;
    queue->count++;
}

void
xc_queue_put_back(xc_queue *queue, xc_msg *msg)
{
    XC_ASSERT(msg->next == NULL);
    msg->next = queue->head;
    queue->head = msg;
    if (queue->tail == NULL) {
        queue->tail = &msg->next;
    }
    queue->count++;
}

xc_msg *
xc_queue_pop(xc_queue *queue)
{
    XC_ASSERT((queue->head == NULL) == (queue->count == 0));
    xc_msg *msg = queue->head;
    if (msg == NULL) {
        return NULL;
    }
    queue->head = msg->next;
    if (queue->head == NULL) {
        queue->tail = NULL;
    }
    queue->count--;
    msg->next = NULL;
    return msg;
}
