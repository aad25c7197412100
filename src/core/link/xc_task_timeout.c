/*
 * A worker whose main thread alone runs tasks refuses a task that the main thread does not take in time.
 *
 * As in execnet, the first task in the queue is refused when the main thread has not become free for a second: the
 * running task may be waiting for this very task. With execnet nothing else that arrives takes effect in that second;
 * here it does, and so the running task still gets what it waits for. After that the next task in the queue has a
 * second of its own. While the main thread is free, however slowly it takes its task, nothing is refused.
 */
#include "xc_link_impl.h"

static const char TOO_LONG[] = "concurrent remote_exec would cause deadlock for main_thread_only execmodel";

const char *
xc_model_name(xc_model model)
{
    static const char *const names[XC_MODELS] = {"thread", "main_thread_only", "gevent", "eventlet"};
    return names[model];
}

void
xc_link_set_model(xc_link *link, xc_model model)
{
    XC_ASSERT(model < XC_MODELS);
    xc_lock_link(&link->mu);
    link->tasks.model = model;
    xc_unlock_link(&link->mu);
}

xc_model
xc_link_model(xc_link *link)
{
    xc_lock_link(&link->mu);
    xc_model model = link->tasks.model;
    xc_unlock_link(&link->mu);
    return model;
}

/* While the main thread is free no timer is set: that begins when it takes the first task. */
void
xc_task_timeout_begin_locked(xc_link *link)
{
    if (link->tasks.model == XC_MODEL_MAIN_ONLY && link->tasks.queue.head != NULL &&
        link->tasks.executing > link->tasks.queue.count && !link->end.eof) {
        link->tasks.first_since = xc_now();
        xc_pump_set(&link->tasks.timeout, link->tasks.first_since + XC_S);
    }
}

/* The channels among the task's arguments are released with it, as if a task had dropped them: whoever waits for one
 * learns it. */
static void
refuse_first_locked(xc_link *link) XC_NEEDS(link)
{
    xc_msg *msg = xc_queue_pop(&link->tasks.queue);
    xc_chan *chan = xc_task_chan(msg);
    if (!chan->recv_closed) {
        xc_link_post_error(link, chan->id, TOO_LONG);
    }
    xc_close_locked(link, chan, false);
    link->tasks.executing--;
    xc_free_later_locked(link, msg);
}

void
xc_task_timeout_over(xc_timer *timer)
{
    xc_link *link = timer->owner;
    xc_lock_link(&link->mu);
    if (link->tasks.queue.head != NULL && link->tasks.executing > link->tasks.queue.count && !link->end.eof) {
        if (xc_now() < link->tasks.first_since + XC_S) { /* the timer was set for a task that has been taken */
            xc_pump_set(timer, link->tasks.first_since + XC_S);
        }
        else {
            refuse_first_locked(link);
            xc_task_timeout_begin_locked(link);
            xc_wake_locked(link);
        }
    }
    xc_unlock_link(&link->mu);
}
